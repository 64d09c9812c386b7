# A thin face: each target is one command of the tool, and EVE's names for targets and variables mean
# what EVE's documentation says. `make help` lists the targets, `make knobs` the variables.
#
# ZARCH, HV, PLATFORM, ROOTFS_VERSION, CONF_DIR, MEDIA_SIZE, ROOTFS_FORMAT, LIVE_UPDATE, KERNEL_TAG and
# KERNEL_IMAGE are read by the tool itself: make hands what is said on its command line on to it.

CARGO ?= cargo
EVE   := $(CARGO) run -q -p cli --
XTASK := $(CARGO) run -q -p xtask --

# Before any program of ours can be linked.
SUDO    = $(if $(filter-out 0,$(shell id -u)),sudo)
APT     = $(SUDO) apt-get install -y --no-install-recommends gcc libc6-dev
LINKER  = { echo "gcc and libc6-dev are missing and will be installed: Rust links with them."; \
            $(APT) || { $(SUDO) apt-get update && $(APT); }; }

.DEFAULT_GOAL := help

# --- knobs -----------------------------------------------------------------------------------------

#| ZARCH=amd64|arm64|riscv64   the processor
#| HV=kvm|k|mini|xen           the hypervisor
#| PLATFORM=generic            the platform; `eve matrix` shows what goes together
#| ROOTFS_VERSION=…            the version, instead of that of the repository
#| DEV=y                       for developers: the debug package, -dev in the version
#| KERNEL_TAG=IMAGE            an image with another kernel
#| KERNEL_IMAGE=FILE           a kernel that takes the place of that in the image
#| ROOTFS_FORMAT=squash|ext4   the format of the node's root file system
#| IMG_FORMAT=qcow2            the format of `live`
#| INSTALLER_IMG_FORMAT=raw    the format of `installer`
#| MEDIA_SIZE=MIB              the size of virtual disks
#| CONF_DIR=DIR                files of the CONFIG partition, over those of conf/
#| LIVE_UPDATE=1               bring an existing live image up to date in place
#| SBOM=FILE                   where `sbom` writes
#| IMAGE= OUTFILE= IMAGE_NAME= what `cache-export` exports, where to, and under which name
#| QEMU_MEMORY=MIB             memory of the machine that `run` starts
#| QEMU_EVE_SERIAL=31415926    its serial number
#| QEMU_PID_FILE=FILE          a file for its process id
#| SSH_PORT=PORT               a port here that leads to its port 22
#| TPM=y                       with a TPM 2.0 (in software)
#| NOACCEL=1                   without KVM
#| V=1                         tell more

# What EVE has and nothing here depends on.
IGNORED := NCORES PRUNE FORCE_BUILD ROOTFS_DEPS RSTATS LIVE_FAST QUIET DEBUG SHA256_BANK TAP CONF_PART \
  EVE_HASH EVE_REL KERNEL_CONFIG_FLAVOR COVER IMM_PROFILING ARTIFICIAL_LEAK FAULT_INJECTION \
  LINUXKIT_OPTS LINUXKIT_PKG_ORG LINUXKIT_MIRROR LINUXKIT_SRC LINUXKIT_GIT_URL LINUXKIT_GIT_REF \
  LINUXKIT_VERSION LINUXKIT_BUILDER_CONFIG BUILDKIT_PROGRESS SSH_PROXY SSH_KEY PFLASH ACCEL
said     = $(filter command override,$(origin $(1)))
no_effect = $(shell echo 'make: $(1) has no effect here' >&2)
$(foreach knob,$(IGNORED),$(if $(call said,$(knob)),$(call no_effect,$(knob))))

ifneq ($(filter-out build,$(LINUXKIT_PKG_TARGET)),)
$(error LINUXKIT_PKG_TARGET=$(LINUXKIT_PKG_TARGET): packages are built and kept in the cache; pushing them is not there yet)
endif

# y and 1 and any other word switch on; n and nothing do not.
on = $(filter-out n no 0,$($(1)))

ifneq ($(call on,V),)
export EVE_LOG ?= debug
endif

IMG_FORMAT           ?= qcow2
INSTALLER_IMG_FORMAT ?= raw
QEMU_EVE_SERIAL      ?= 31415926

DEVELOPER := $(if $(call on,DEV),--dev)
BUILD     := $(EVE) build
ARCH_OPT  := $(if $(ZARCH),--arch '$(ZARCH)')
FOLDER    := $(EVE) version $(DEVELOPER) --folder
RUN_OPT   := $(if $(QEMU_MEMORY),--memory '$(QEMU_MEMORY)') --serial '$(QEMU_EVE_SERIAL)' \
  $(if $(SSH_PORT),--forward '$(SSH_PORT):22') $(if $(call on,TPM),--tpm) \
  $(if $(call on,NOACCEL),--no-accel) $(if $(QEMU_PID_FILE),--pid-file '$(QEMU_PID_FILE)')

# Both are said as rootfs-<one of them>.
HVS := kvm k mini xen

# --- targets ---------------------------------------------------------------------------------------

.PHONY: help knobs setup tool demo test down bench clean FORCE
help: ## this list
	@sed -n -e 's/^##@ \(.*\)/\n\1/p' -e 's/^\([a-z_/%<>. -]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 30

knobs: ## the variables that targets know
	@sed -n 's/^#| /  /p' $(MAKEFILE_LIST)
	@echo '  without effect here: $(IGNORED)' | fold -s -w 100

##@ everything at once
setup: ## install what the host lacks (says what; quick when nothing is missing)
	@command -v cc >/dev/null || $(LINKER)
	@$(CARGO) build -p xtask
	@$(XTASK) setup

# Built where one can see it: the first time takes minutes. `make EVE=path/to/eve …` takes that one.
ifeq ($(origin EVE),file)
tool: setup ## build the `eve` command for this clone
	@$(CARGO) build -p cli
else
tool: ;
endif

demo: tool ## build, boot, onboard and run the sample app: http://localhost:8080
	@$(EVE) up

down: ## stop what `make demo` started
	@$(EVE) down

test: setup ## everything that CI runs, the QEMU boot included
	@$(XTASK) setup --for-tests
	@$(XTASK) ci

bench: setup ## memory and times of a node in QEMU
	@$(XTASK) bench node

clean: ## remove what was built (the package cache stays)
	$(CARGO) clean
	rm -rf dist

##@ images, in dist/<arch>/<version>; dist/<arch>/current is the newest
.PHONY: rootfs config config.img live installer installer.raw installertar installer.tar installer-img eve
rootfs: tool ## the root file system: rootfs.tar, and the slot image that a controller hands out
	@$(BUILD) rootfs $(DEVELOPER)
	@$(BUILD) slot $(DEVELOPER)

rootfs-%: tool ## the same for a hypervisor or a platform: rootfs-xen, rootfs-rt
	@$(BUILD) rootfs $(DEVELOPER) $(if $(filter $(HVS),$*),--hv,--platform) '$*'
	@$(BUILD) slot $(DEVELOPER) $(if $(filter $(HVS),$*),--hv,--platform) '$*'

config config.img: tool ## the CONFIG partition: config.img
	@$(BUILD) config $(DEVELOPER)

live: tool ## the live disk: live.<IMG_FORMAT>
	@$(BUILD) live $(DEVELOPER) --format '$(IMG_FORMAT)'

live-%: tool ## the same as raw, qcow2, vdi, vmdk, vhdx, parallels, gcp
	@$(BUILD) live $(DEVELOPER) --format '$*'

installer installer.raw: tool ## the disk that installs: installer.raw
	@$(BUILD) installer $(DEVELOPER) --format '$(INSTALLER_IMG_FORMAT)'

installer-%: tool ## the same as raw, iso, net
	@$(BUILD) installer $(DEVELOPER) --format '$*'

installertar installer.tar installer-img: tool
	@$(BUILD) installer $(DEVELOPER) --format raw

eve: tool ## everything that a release has: disks, installers, CONFIG, software bill of materials
	@$(BUILD) live $(DEVELOPER) --format 'raw,$(IMG_FORMAT)'
	@$(BUILD) rootfs $(DEVELOPER)
	@$(BUILD) installer $(DEVELOPER) --format raw,iso,net
	@$(MAKE) --no-print-directory sbom

##@ packages
.PHONY: pkgs kernel-tag version currentversion cache-export matrix
pkgs: tool ## all packages
	@$(EVE) pkg build $(ARCH_OPT)

pkg/%: tool FORCE ## one package: pkg/crun
	@$(EVE) pkg build $(ARCH_OPT) 'pkg/$*'

eve-%: tool
	@$(EVE) pkg build $(ARCH_OPT) 'pkg/$*'

%-show-tag: tool ## the image of a package: crun-show-tag
	@$(EVE) pkg tag $(ARCH_OPT) 'pkg/$*'

kernel-tag: tool ## the image of the kernel
	@$(if $(KERNEL_TAG),echo '$(KERNEL_TAG)',$(EVE) matrix --kernel-tag $(ARCH_OPT) \
	  $(if $(HV),--hv '$(HV)') $(if $(PLATFORM),--platform '$(PLATFORM)'))

cache-export: tool ## an image of the cache as a file: IMAGE=… OUTFILE=… [IMAGE_NAME=…]
	@$(EVE) cache export $(ARCH_OPT) $(if $(IMAGE_NAME),--name '$(IMAGE_NAME)') \
	  -o '$(or $(OUTFILE),$(error OUTFILE is not set))' '$(or $(IMAGE),$(error IMAGE is not set))'

matrix: tool ## which ZARCH, HV and PLATFORM go together
	@$(EVE) matrix

version: tool ## the version that a build would have
	@$(EVE) version $(DEVELOPER)

currentversion: tool ## the version that was built last
	@$(EVE) version --current

##@ what is in an image
.PHONY: sbom sbom_info collected_sources collected_sources_info compare_sbom_collected_sources
sbom_file    = $(or $(SBOM),$$($(FOLDER))/installer/rootfs-$(or $(PLATFORM),generic).spdx.json)
sources_file = $$($(FOLDER))/sources/collected_sources.tar.gz

sbom: tool ## the software bill of materials
	@$(BUILD) rootfs $(DEVELOPER)
	@$(EVE) sbom -o "$(sbom_file)" "$$($(FOLDER))/rootfs.tar"

sbom_info: tool ## where that is
	@echo "$(sbom_file)"

collected_sources: tool ## the sources of everything in the image
	@$(BUILD) rootfs $(DEVELOPER)
	@$(EVE) sources --tar "$(sources_file)" "$$($(FOLDER))/rootfs.tar"

collected_sources_info: tool ## where those are
	@echo "$(sources_file)"

compare_sbom_collected_sources: sbom ## whether all that the image has is among the sources
	@$(EVE) sources --check "$(sbom_file)" "$$($(FOLDER))/rootfs.tar"

##@ in QEMU (nothing is built)
.PHONY: run run-live run-target run-live-gui
run run-live: tool ## boot the newest live image on this terminal
	@$(EVE) run live $(ARCH_OPT) $(RUN_OPT)

run-installer-%: tool ## boot the newest installer (raw, iso, net) with an empty disk to install to
	@$(EVE) run installer $(ARCH_OPT) --format '$*' $(if $(MEDIA_SIZE),--disk '$(MEDIA_SIZE)') $(RUN_OPT)

run-target: tool ## boot the disk that was installed to
	@$(EVE) run target $(ARCH_OPT) $(RUN_OPT)

# --- what EVE has and we do not --------------------------------------------------------------------

# Its part here is played by …
INSTEAD_test-all          := make test
INSTEAD_test-bpftrace     := make test
INSTEAD_test-profiling    := make bench
INSTEAD_eden              := make test (crates/testbed boots real nodes)
INSTEAD_evetest           := make test (crates/testbed boots real nodes)
INSTEAD_build-tools       := make tool
INSTEAD_linuxkit          := make tool (eve compose and eve pkg)
INSTEAD_shell             := nothing: no container is needed to build
INSTEAD_proto             := cargo build (prost generates the API)
INSTEAD_proto-vendor      := cargo build (prost generates the API)
INSTEAD_initrd            := make live (the initrd is part of the kernel image on the ESP)
INSTEAD_yetus             := make test (formats, lints, licences)
INSTEAD_mini-yetus        := make test (formats, lints, licences)
INSTEAD_semgrep           := make test (formats, lints, licences)
INSTEAD_rootfstar         := make rootfs
INSTEAD_rootfs.tar        := make rootfs
INSTEAD_run-live-gui      := make run-live (the console is this terminal)
INSTEAD_run-compose       := make demo
INSTEAD_publish_sources   := make collected_sources
INSTEAD_gosources         := make collected_sources
INSTEAD_ssh-key           := nothing: there is no ssh on the node
INSTEAD_run-proxy         := nothing: there is no ssh on the node
INSTEAD_semgrep-all       := make test (formats, lints, licences)
INSTEAD_eden-cover        := make test (crates/testbed boots real nodes)
INSTEAD_coverage-merge    := make test (crates/testbed boots real nodes)
INSTEAD_check-docker-hashes-consistency := nothing: packages name each other by recipe, not by digest
INSTEAD_check-pubsub-persistence := make test (what was ever saved must load)
INSTEAD_fullname-rootfs   := make rootfs (`eve version --full` says the full name)
INSTEAD_cache-export-docker-load := make cache-export, then docker load -i
INSTEAD_cache-export-docker-load-all := make cache-export, then docker load -i
INSTEAD_docker-old-images := nothing: no container is needed to build
INSTEAD_docker-image-clean := nothing: no container is needed to build
INSTEAD_live-gcp-upload   := make live-gcp, then gcloud compute images create
INSTEAD_run-live-gcp      := make live-gcp, then gcloud compute instances create
INSTEAD_run-live-vb       := make live-vdi, then VirtualBox
INSTEAD_run-live-parallels := make live-parallels, then Parallels
INSTEAD_run-grub          := make run-live (a BIOS boots through GRUB, UEFI without)
INSTEAD_build-vm          := nothing: any Debian or Ubuntu builds
INSTEAD_run-build-vm      := nothing: any Debian or Ubuntu builds
INSTEAD_release           := git tag (the version follows from it)
INSTEAD_rc-release        := git tag (the version follows from it)
INSTEAD_lts-release       := git tag (the version follows from it)
ELSEWHERE := $(patsubst INSTEAD_%,%,$(filter INSTEAD_%,$(.VARIABLES)))
.PHONY: $(ELSEWHERE)
$(ELSEWHERE):
	@echo 'make $@ is one of EVE; here: $(INSTEAD_$@)' >&2; exit 2

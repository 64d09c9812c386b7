//! A virtual machine as a value, and the QEMU command line that it stands for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{Arch, Bytes};

use super::forward::Forward;

/// A virtual machine: a PC (q35), or QEMU's `virt` for ARM and RISC-V.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What its processors are.
    pub arch: Arch,
    /// What runs the guest's instructions.
    pub accel: Accel,
    /// The guest's memory, in whole MiB.
    pub memory: Bytes,
    /// The number of processors, 1 or more. `None`: as [`Accel::cpus`] says.
    pub cpus: Option<u8>,
    /// What starts the guest. `None`: QEMU's own BIOS.
    pub flash: Option<Flash>,
    /// The first one is booted.
    pub disks: Vec<Disk>,
    /// An image of a CD in its drive. It is booted if no disk can be.
    pub cd: Option<PathBuf>,
    /// A USB stick. It is booted if neither a disk nor a CD can be.
    pub stick: Option<Disk>,
    /// `eth0`, `eth1`, …
    pub nics: Vec<Nic>,
    /// The first serial port.
    pub serial: Serial,
    /// A Unix socket that is the far end of the virtio-serial port `org.lfedge.eve.debug`.
    pub debug: Option<PathBuf>,
    /// An i6300esb watchdog that resets the guest.
    pub watchdog: bool,
    /// The control socket of a running swtpm.
    pub tpm: Option<PathBuf>,
    /// The serial number in the guest's firmware tables (SMBIOS type 1).
    pub serial_number: String,
    /// The Unix socket of the monitor (QMP).
    pub qmp: PathBuf,
    /// A file for QEMU's process id.
    pub pid_file: Option<PathBuf>,
    /// A memory snapshot to start from; see [`super::Qmp::save_memory`].
    pub incoming: Option<PathBuf>,
    /// Whether the guest may reboot. If not, QEMU ends where the guest would.
    pub reboot: bool,
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor, by the kernel's KVM.
    Kvm,
    /// QEMU's translator: everywhere, about ten times slower.
    Tcg,
}

impl Accel {
    /// So many processors a guest has if nobody asks for a number. One under TCG: with more, QEMU
    /// 7.2 now and then runs the breakpoint of code that Linux is patching after it has been taken
    /// away, and the guest panics ("Oops: int3").
    pub fn cpus(self) -> u8 {
        match self {
            Accel::Kvm => 2,
            Accel::Tcg => 1,
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "KVM",
            Accel::Tcg => "TCG (no KVM)",
        })
    }
}

/// What starts a guest; [`super::Firmware`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flash {
    /// UEFI in flash: code that is shared, variables that are the machine's own.
    Code {
        /// Read only.
        code: PathBuf,
        /// A private copy; it is written to.
        vars: PathBuf,
        /// The format of the variables. Memory snapshots need qcow2.
        vars_format: DiskFormat,
    },
    /// A program that QEMU loads where it would load a kernel.
    Loader(PathBuf),
}

/// A disk: where nothing else is said, a virtio disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// Its format; never guessed, since a guest could write a header of another.
    pub format: DiskFormat,
}

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's own, which may lie over a base image.
    Qcow2,
    /// VirtualBox's.
    Vdi,
    /// VMware's.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// Parallels'.
    Parallels,
}

impl DiskFormat {
    /// By the file's name: `.qcow2`, `.vdi`, `.vmdk`, `.vhdx`, `.hds`; any other is raw.
    pub fn of(path: &Path) -> DiskFormat {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("qcow2") => DiskFormat::Qcow2,
            Some("vdi") => DiskFormat::Vdi,
            Some("vmdk") => DiskFormat::Vmdk,
            Some("vhdx") => DiskFormat::Vhdx,
            Some("hds") => DiskFormat::Parallels,
            _ => DiskFormat::Raw,
        }
    }

    /// As QEMU writes it.
    pub const fn name(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Vdi => "vdi",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Vhdx => "vhdx",
            DiskFormat::Parallels => "parallels",
        }
    }
}

/// A network card on a network of its own behind this machine's address (QEMU user network):
/// the guest is 10.0.2.15, this machine 10.0.2.2, a name server 10.0.2.3. Further cards get
/// 10.0.3.0/24 and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The hardware address. Two machines on this machine may have the same: their networks
    /// never meet.
    pub mac: [u8; 6],
    /// Ports of this machine that lead to the guest.
    pub forwards: Vec<Forward>,
    /// The cable.
    pub plugged: bool,
    /// A file that the network hands out by TFTP, with the rest of its folder, for firmware to boot.
    /// It is booted if nothing else can be.
    pub boot: Option<PathBuf>,
}

impl Nic {
    /// The card with this index, with its cable plugged in.
    pub fn new(index: u8, forwards: Vec<Forward>) -> Nic {
        // 52:54:00 is the locally administered prefix that QEMU guests customarily have.
        Nic {
            mac: [0x52, 0x54, 0x00, 0x12, 0x34, 0x56_u8.wrapping_add(index)],
            forwards,
            plugged: true,
            boot: None,
        }
    }
}

/// Where the first serial port goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// Appended to a file.
    File(PathBuf),
    /// The terminal of whoever started QEMU, and a copy in a file. Ctrl-a x ends QEMU.
    Terminal {
        /// The copy.
        copy: PathBuf,
    },
}

/// What differs between the machines of the architectures.
struct Board {
    machine: &'static str,
    /// Where instructions are translated.
    cpu: &'static str,
    /// Whether it has firmware tables (SMBIOS), which hold the serial number.
    smbios: bool,
    /// The device that holds a TPM, if it can have one.
    tpm: Option<&'static str>,
}

impl Board {
    const fn of(arch: Arch) -> Board {
        match arch {
            // `max` is all that QEMU can emulate.
            Arch::Amd64 => Board { machine: "q35", cpu: "max", smbios: true, tpm: Some("tpm-crb") },
            // `max` would compute pointer signatures that nobody checks.
            Arch::Arm64 => Board {
                machine: "virt",
                cpu: "cortex-a72",
                smbios: true,
                tpm: Some("tpm-tis-device"),
            },
            Arch::Riscv64 => Board { machine: "virt", cpu: "rv64", smbios: false, tpm: None },
        }
    }
}

impl Machine {
    /// The arguments for the QEMU of its architecture.
    pub fn args(&self) -> Vec<String> {
        let board = Board::of(self.arch);
        let mut args = Args::default();
        args.flag("-nodefaults");
        args.pair("-display", "none");
        args.pair("-M", board.machine);
        match self.accel {
            Accel::Kvm => args.pair("-accel", "kvm").pair("-cpu", "host"),
            // Translated guests run one thread a processor.
            Accel::Tcg => args.pair("-accel", "tcg,thread=multi").pair("-cpu", board.cpu),
        };
        args.pair("-m", (self.memory.0 >> 20).to_string());
        args.pair("-smp", self.cpus.unwrap_or(self.accel.cpus()).to_string());
        args.pair("-rtc", "base=utc");
        if board.smbios {
            args.pair("-smbios", format!("type=1,serial={}", quoted(&self.serial_number)));
        }
        if !self.reboot {
            args.flag("-no-reboot");
        }
        match &self.flash {
            Some(Flash::Code { code, vars, vars_format }) => {
                let (code, vars, format) = (file(code), file(vars), vars_format.name());
                args.pair("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"));
                args.pair("-drive", format!("if=pflash,format={format},unit=1,file={vars}"));
            }
            // Not a list of options: a comma is a comma here.
            Some(Flash::Loader(path)) => {
                args.pair("-kernel", path.to_string_lossy());
            }
            None => {}
        }
        for (i, disk) in self.disks.iter().enumerate() {
            disk.write(i, &mut args);
        }
        let mut last = self.disks.len();
        if let Some(cd) = &self.cd {
            let cd = file(cd);
            args.pair(
                "-drive",
                format!("if=none,id=cd,media=cdrom,format=raw,readonly=on,file={cd}"),
            );
            args.pair("-device", "virtio-scsi-pci,id=scsi");
            args.pair("-device", format!("scsi-cd,bus=scsi.0,drive=cd,bootindex={last}"));
            last += 1;
        }
        if let Some(Disk { path, format }) = &self.stick {
            let (format, file) = (format.name(), file(path));
            args.pair("-drive", format!("if=none,id=stick,format={format},file={file}"));
            args.pair("-device", "qemu-xhci");
            args.pair("-device", format!("usb-storage,drive=stick,bootindex={last}"));
            last += 1;
        }
        for (i, nic) in self.nics.iter().enumerate() {
            nic.write(i, last, &mut args);
        }
        self.serial.write(&mut args);
        args.pair("-device", "virtio-rng-pci");
        if let Some(socket) = &self.debug {
            let socket = file(socket);
            args.pair("-chardev", format!("socket,id=debug,path={socket},server=on,wait=off"));
            args.pair("-device", "virtio-serial-pci");
            args.pair("-device", "virtserialport,chardev=debug,name=org.lfedge.eve.debug");
        }
        if self.watchdog {
            args.pair("-device", "i6300esb").pair("-action", "watchdog=reset");
        }
        if let (Some(socket), Some(device)) = (&self.tpm, board.tpm) {
            args.pair("-chardev", format!("socket,id=tpm,path={}", file(socket)));
            args.pair("-tpmdev", "emulator,id=tpm0,chardev=tpm");
            args.pair("-device", format!("{device},tpmdev=tpm0"));
        }
        let qmp = file(&self.qmp);
        args.pair("-chardev", format!("socket,id=qmp,path={qmp},server=on,wait=off"));
        args.pair("-mon", "chardev=qmp,mode=control");
        if let Some(path) = &self.pid_file {
            args.pair("-pidfile", path.to_string_lossy());
        }
        if let Some(memory) = &self.incoming {
            // `file:` would be shorter, but QEMU knows it only since 8.2.
            args.pair("-incoming", format!("exec:cat {}", shell_word(memory)));
        }
        args.0
    }

    /// Every port of this machine that the guest will answer on.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.nics.iter().flat_map(|n| &n.forwards)
    }

    /// Every Unix socket that will be made.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &PathBuf> {
        [Some(&self.qmp), self.debug.as_ref(), self.tpm.as_ref()].into_iter().flatten()
    }
}

impl Disk {
    fn write(&self, i: usize, args: &mut Args) {
        let (format, file) = (self.format.name(), file(&self.path));
        // The default cache mode obeys the guest's flushes: killing QEMU is then a power cut that
        // loses what was not flushed, and only that.
        args.pair(
            "-drive",
            format!("if=none,id=disk{i},format={format},discard=unmap,file={file}"),
        );
        args.pair("-device", format!("virtio-blk-pci,drive=disk{i},bootindex={i}"));
    }
}

impl Nic {
    fn write(&self, i: usize, boot_index: usize, args: &mut Args) {
        let net = i + 2;
        let mut netdev = format!("user,id=net{i},net=10.0.{net}.0/24,dhcpstart=10.0.{net}.15");
        for Forward { at, guest_port } in &self.forwards {
            netdev.push_str(&format!(",hostfwd=tcp:{}-:{guest_port}", host_address(at)));
        }
        let mac = self.mac.map(|b| format!("{b:02x}")).join(":");
        let mut card = format!("virtio-net-pci,id=nic{i},netdev=net{i},mac={mac},romfile=");
        if let Some((path, name)) = self.boot.as_ref().and_then(|p| Some((p, p.file_name()?))) {
            let folder = file(path.parent().unwrap_or(Path::new(".")));
            netdev
                .push_str(&format!(",tftp={folder},bootfile={}", quoted(&name.to_string_lossy())));
            card.push_str(&format!(",bootindex={}", boot_index + i));
        }
        args.pair("-netdev", netdev);
        args.pair("-device", card);
    }
}

impl Serial {
    fn write(&self, args: &mut Args) {
        match self {
            Serial::File(path) => {
                args.pair("-chardev", format!("file,id=serial,append=on,path={}", file(path)));
            }
            Serial::Terminal { copy } => {
                let copy = file(copy);
                args.pair(
                    "-chardev",
                    format!("stdio,id=serial,mux=on,signal=off,logfile={copy},logappend=on"),
                );
                args.pair("-mon", "chardev=serial,mode=readline");
            }
        }
        args.pair("-serial", "chardev:serial");
    }
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, flag: &str) -> &mut Args {
        self.0.push(flag.to_owned());
        self
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) -> &mut Args {
        self.0.extend([flag.to_owned(), value.into()]);
        self
    }
}

/// In QEMU's options a comma ends a value unless it is doubled.
fn quoted(text: &str) -> String {
    text.replace(',', ",,")
}

fn file(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn host_address(at: &SocketAddr) -> String {
    format!("{}:{}", at.ip(), at.port())
}

/// One word for `sh -c`, whatever is in it.
pub(super) fn shell_word(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Machine {
        Machine {
            arch: Arch::Amd64,
            accel: Accel::Tcg,
            memory: Bytes::mib(512),
            cpus: Some(2),
            flash: None,
            disks: vec![],
            cd: None,
            stick: None,
            nics: vec![],
            serial: Serial::File("/s/serial.log".into()),
            debug: None,
            watchdog: false,
            tpm: None,
            serial_number: "node-1".into(),
            qmp: "/s/qmp".into(),
            pid_file: None,
            incoming: None,
            reboot: true,
        }
    }

    /// One argument a line, options together with their value.
    fn show(machine: &Machine) -> String {
        machine.args().join(" ").replace(" -", "\n-")
    }

    #[track_caller]
    fn check(machine: &Machine, want: &[&str]) {
        let base = show(&bare());
        let got = show(machine);
        let news: Vec<&str> = got.lines().filter(|l| !base.lines().any(|b| b == *l)).collect();
        assert_eq!(news, want);
    }

    #[test]
    fn the_bare_machine_has_a_serial_log_and_a_monitor_only() {
        let want = "-nodefaults\n-display none\n-M q35\n-accel tcg,thread=multi\n-cpu max\n-m 512\n\
                    -smp 2\n-rtc base=utc\n-smbios type=1,serial=node-1\n\
                    -chardev file,id=serial,append=on,path=/s/serial.log\n-serial chardev:serial\n\
                    -device virtio-rng-pci\n\
                    -chardev socket,id=qmp,path=/s/qmp,server=on,wait=off\n\
                    -mon chardev=qmp,mode=control";
        assert_eq!(show(&bare()), want);
    }

    #[test]
    fn a_comma_in_a_path_stays_in_the_path() {
        let disk = Disk { path: "/a,b/d".into(), format: DiskFormat::Raw };
        check(
            &Machine { disks: vec![disk], ..bare() },
            &[
                "-drive if=none,id=disk0,format=raw,discard=unmap,file=/a,,b/d",
                "-device virtio-blk-pci,drive=disk0,bootindex=0",
            ],
        );
    }

    #[test]
    fn firmware_code_is_read_only_and_variables_are_not() {
        let flash = Flash::Code {
            code: "/f/CODE.fd".into(),
            vars: "/s/vars.qcow2".into(),
            vars_format: DiskFormat::Qcow2,
        };
        check(
            &Machine { flash: Some(flash), ..bare() },
            &[
                "-drive if=pflash,format=raw,unit=0,readonly=on,file=/f/CODE.fd",
                "-drive if=pflash,format=qcow2,unit=1,file=/s/vars.qcow2",
            ],
        );
    }

    #[test]
    fn other_architectures_differ_in_board_processor_and_what_starts_them() {
        let arm = Machine { arch: Arch::Arm64, tpm: Some("/s/tpm".into()), ..bare() };
        check(
            &arm,
            &[
                "-M virt",
                "-cpu cortex-a72",
                "-chardev socket,id=tpm,path=/s/tpm",
                "-tpmdev emulator,id=tpm0,chardev=tpm",
                "-device tpm-tis-device,tpmdev=tpm0",
            ],
        );
        let flash = Some(Flash::Loader("/u/u-boot.bin".into()));
        let risc = Machine { arch: Arch::Riscv64, flash, ..bare() };
        check(&risc, &["-M virt", "-cpu rv64", "-kernel /u/u-boot.bin"]);
        assert!(!show(&risc).contains("-smbios"), "this board has no such tables");
    }

    #[test]
    fn each_card_has_a_network_of_its_own() {
        let page = Forward { at: ([127, 0, 0, 1], 8080).into(), guest_port: 8080 };
        check(
            &Machine { nics: vec![Nic::new(0, vec![page]), Nic::new(1, vec![])], ..bare() },
            &[
                "-netdev user,id=net0,net=10.0.2.0/24,dhcpstart=10.0.2.15,\
                 hostfwd=tcp:127.0.0.1:8080-:8080",
                "-device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:12:34:56,romfile=",
                "-netdev user,id=net1,net=10.0.3.0/24,dhcpstart=10.0.3.15",
                "-device virtio-net-pci,id=nic1,netdev=net1,mac=52:54:00:12:34:57,romfile=",
            ],
        );
    }

    #[test]
    fn what_installs_is_booted_once_the_disk_cannot_be() {
        let disk = Disk { path: "/s/target".into(), format: DiskFormat::Qcow2 };
        let nic = Nic { boot: Some("/n,et/ipxe.efi".into()), ..Nic::new(0, vec![]) };
        check(
            &Machine {
                disks: vec![disk],
                cd: Some("/i/installer.iso".into()),
                nics: vec![nic],
                pid_file: Some("/s/pid".into()),
                ..bare()
            },
            &[
                "-drive if=none,id=disk0,format=qcow2,discard=unmap,file=/s/target",
                "-device virtio-blk-pci,drive=disk0,bootindex=0",
                "-drive if=none,id=cd,media=cdrom,format=raw,readonly=on,file=/i/installer.iso",
                "-device virtio-scsi-pci,id=scsi",
                "-device scsi-cd,bus=scsi.0,drive=cd,bootindex=1",
                "-netdev user,id=net0,net=10.0.2.0/24,dhcpstart=10.0.2.15,tftp=/n,,et,\
                 bootfile=ipxe.efi",
                "-device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:12:34:56,romfile=,\
                 bootindex=2",
                "-pidfile /s/pid",
            ],
        );
    }

    #[test]
    fn a_stick_is_booted_behind_the_disk() {
        let disk = Disk { path: "/s/target".into(), format: DiskFormat::Raw };
        let stick =
            Some(Disk { path: "/s/stick".into(), format: DiskFormat::of("/s/stick".as_ref()) });
        check(
            &Machine { disks: vec![disk], stick, ..bare() },
            &[
                "-drive if=none,id=disk0,format=raw,discard=unmap,file=/s/target",
                "-device virtio-blk-pci,drive=disk0,bootindex=0",
                "-drive if=none,id=stick,format=raw,file=/s/stick",
                "-device qemu-xhci",
                "-device usb-storage,drive=stick,bootindex=1",
            ],
        );
    }

    #[test]
    fn a_snapshot_comes_in_through_a_shell_that_sees_one_word() {
        let from = Some("/it's/memory".into());
        check(&Machine { incoming: from, ..bare() }, &[r"-incoming exec:cat '/it'\''s/memory'"]);
    }

    #[test]
    fn the_debug_port_the_tpm_and_the_watchdog_are_devices() {
        let machine = Machine {
            debug: Some("/s/debug".into()),
            tpm: Some("/s/tpm".into()),
            watchdog: true,
            reboot: false,
            ..bare()
        };
        check(
            &machine,
            &[
                "-no-reboot",
                "-chardev socket,id=debug,path=/s/debug,server=on,wait=off",
                "-device virtio-serial-pci",
                "-device virtserialport,chardev=debug,name=org.lfedge.eve.debug",
                "-device i6300esb",
                "-action watchdog=reset",
                "-chardev socket,id=tpm,path=/s/tpm",
                "-tpmdev emulator,id=tpm0,chardev=tpm",
                "-device tpm-crb,tpmdev=tpm0",
            ],
        );
    }
}

//! Images: a root file system tar to slot images and disks.

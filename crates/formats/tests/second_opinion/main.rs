//! What our writers wrote, judged by programs that others wrote.

mod disk;
mod images;
mod iso;
mod program;
mod squashfs;
mod squashfs_trees;
mod table;
mod tools;

//! What our writers wrote, judged by programs that others wrote.

mod disk;
mod images;
mod program;
mod table;
mod tools;

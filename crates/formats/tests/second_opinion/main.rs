//! What our writers wrote, judged by programs that others wrote.

mod disk;
mod program;
mod table;
mod tools;

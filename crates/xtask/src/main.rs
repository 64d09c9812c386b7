//! What CI does, by name.
fn main() {}

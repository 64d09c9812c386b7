//! What expressions can call.

/// A function. What it does is told where it is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Select,
    Del,
    Test,
    Has,
    Map,
    Length,
    Keys,
    Not,
    Empty,
    First,
    Limit,
    ToEntries,
    FromEntries,
    WithEntries,
}

/// Name and number of arguments of each.
const FUNCTIONS: [(&str, usize, Function); 15] = [
    ("select", 1, Function::Select),
    ("del", 1, Function::Del),
    ("test", 1, Function::Test),
    ("has", 1, Function::Has),
    ("map", 1, Function::Map),
    ("length", 0, Function::Length),
    ("keys", 0, Function::Keys),
    ("not", 0, Function::Not),
    ("empty", 0, Function::Empty),
    ("first", 0, Function::First),
    ("first", 1, Function::First),
    ("limit", 2, Function::Limit),
    ("to_entries", 0, Function::ToEntries),
    ("from_entries", 0, Function::FromEntries),
    ("with_entries", 1, Function::WithEntries),
];

/// The function of that name with so many arguments; else why there is none.
pub(super) fn find(name: &str, arguments: usize) -> Result<Function, String> {
    let named: Vec<_> = FUNCTIONS.iter().filter(|(n, ..)| *n == name).collect();
    if let Some((.., function)) = named.iter().find(|(_, count, _)| *count == arguments) {
        return Ok(*function);
    }
    match named.first() {
        Some((_, wanted, _)) => {
            Err(format!("{name} takes {wanted} arguments (separated by ;), not {arguments}"))
        }
        None => {
            let mut known: Vec<&str> = FUNCTIONS.iter().map(|(n, ..)| *n).collect();
            known.dedup();
            Err(format!("there is no function {name}; there are {}", known.join(", ")))
        }
    }
}

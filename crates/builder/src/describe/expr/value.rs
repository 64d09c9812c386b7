//! What the signs and functions of expressions make of values.

use super::ExprError;
use crate::compose::yaml::Meaning;
use crate::describe::tree::{Node, Origin, Scalar, Step, Value};

pub(super) fn number(node: &Node) -> Option<i128> {
    match &node.value {
        Value::Scalar(scalar) => match scalar.meaning() {
            Meaning::Int(n) => Some(n),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn text(node: &Node, at: &Origin) -> Result<String, ExprError> {
    match &node.value {
        Value::Scalar(scalar) if !node.is_null() => Ok(scalar.text.clone()),
        _ => Err(ExprError::at(at, format!("this takes text, not {}", node.kind()))),
    }
}

pub(super) fn truth(is: bool, at: &Origin) -> Node {
    Node { value: Value::Scalar(Scalar::plain(is.to_string())), origin: at.clone() }
}

/// As yq compares: null equals null only; scalars by their text, in which `*` and `?` of the right
/// side stand for anything; lists and mappings equal nothing.
pub(super) fn equal(left: &Node, right: &Node) -> bool {
    if left.is_null() || right.is_null() {
        return left.is_null() && right.is_null();
    }
    match (&left.value, &right.value) {
        (Value::Scalar(left), Value::Scalar(right)) => matches(&left.text, &right.text),
        _ => false,
    }
}

/// Whether text fits a pattern of `*` and `?`. Takes no more than the product of their lengths.
fn matches(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    // Where the last `*` stood, and how much text it was tried to eat.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                t += 1;
                p += 1;
            }
            _ => match star {
                None => return false,
                Some((at, eaten)) => {
                    star = Some((at, eaten + 1));
                    t = eaten + 1;
                    p = at + 1;
                }
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

pub(super) fn add(left: &Node, right: &Node, at: &Origin) -> Result<Node, ExprError> {
    let origin = || at.clone();
    let value = match (&left.value, &right.value) {
        _ if left.is_null() => return Ok(right.clone()),
        (Value::List(items), _) => {
            let more = match &right.value {
                Value::List(more) => more.clone(),
                _ if right.is_null() => Vec::new(),
                _ => vec![right.clone()],
            };
            let all = items.iter().cloned().chain(more).collect();
            return Ok(Node { value: Value::List(all), origin: left.origin.clone() });
        }
        (Value::Map(entries), Value::Map(more)) => {
            let mut all = entries.clone();
            for (key, node) in more {
                match all.iter_mut().find(|(have, _)| have == key) {
                    Some((_, have)) => *have = node.clone(),
                    None => all.push((key.clone(), node.clone())),
                }
            }
            return Ok(Node { value: Value::Map(all), origin: left.origin.clone() });
        }
        (Value::Scalar(a), Value::Scalar(b)) => match (a.meaning(), b.meaning()) {
            (_, Meaning::Nothing) => return Ok(left.clone()),
            (Meaning::Int(a), Meaning::Int(b)) => {
                let sum =
                    a.checked_add(b).ok_or_else(|| ExprError::at(at, "the sum is too large"))?;
                Value::Scalar(Scalar::plain(sum.to_string()))
            }
            (Meaning::Text, _) | (_, Meaning::Text) => {
                Value::Scalar(Scalar::quoted(format!("{}{}", a.text, b.text)))
            }
            _ => return Err(cannot("add", right, "to", left, at)),
        },
        _ => return Err(cannot("add", right, "to", left, at)),
    };
    Ok(Node { value, origin: origin() })
}

pub(super) fn subtract(left: &Node, right: &Node, at: &Origin) -> Result<Node, ExprError> {
    match (&left.value, &right.value) {
        (Value::List(items), Value::List(less)) => {
            let left_over = items.iter().filter(|item| !less.iter().any(|l| same(item, l)));
            let value = Value::List(left_over.cloned().collect());
            Ok(Node { value, origin: left.origin.clone() })
        }
        _ => match (number(left), number(right)) {
            (Some(a), Some(b)) => {
                let value = Value::Scalar(Scalar::plain(a.saturating_sub(b).to_string()));
                Ok(Node { value, origin: at.clone() })
            }
            _ => Err(cannot("subtract", right, "from", left, at)),
        },
    }
}

fn cannot(what: &str, right: &Node, to: &str, left: &Node, at: &Origin) -> ExprError {
    ExprError::at(at, format!("cannot {what} {} {to} {}", right.kind(), left.kind()))
}

/// Whether two values are the same, wherever they come from.
fn same(left: &Node, right: &Node) -> bool {
    match (&left.value, &right.value) {
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text && a.meaning() == b.meaning(),
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let found = |(key, node): &(String, Node)| {
                b.iter().any(|(have, other)| have == key && same(node, other))
            };
            a.len() == b.len() && a.iter().all(found)
        }
        _ => false,
    }
}

pub(super) fn has(node: &Node, key: &Node) -> bool {
    match (&node.value, &key.value) {
        (Value::Map(_), Value::Scalar(key)) => node.get(&Step::Key(key.text.clone())).is_some(),
        (Value::List(items), _) => {
            number(key).and_then(|n| usize::try_from(n).ok()).is_some_and(|n| n < items.len())
        }
        _ => false,
    }
}

pub(super) fn to_entries(node: &Node, at: &Origin) -> Vec<Node> {
    let entry = |key: Scalar, value: &Node| {
        let key = Node { value: Value::Scalar(key), origin: at.clone() };
        let entry = vec![("key".to_owned(), key), ("value".to_owned(), value.clone())];
        Node { value: Value::Map(entry), origin: at.clone() }
    };
    match &node.value {
        Value::Map(entries) => entries.iter().map(|(k, n)| entry(Scalar::quoted(k), n)).collect(),
        Value::List(items) => {
            let each = items.iter().enumerate();
            each.map(|(n, node)| entry(Scalar::plain(n.to_string()), node)).collect()
        }
        Value::Scalar(_) => Vec::new(),
    }
}

pub(super) fn from_entries(node: &Node, at: &Origin) -> Result<Vec<(String, Node)>, ExprError> {
    let Value::List(items) = &node.value else {
        return Err(ExprError::at(at, format!("entries are a list, not {}", node.kind())));
    };
    let mut entries: Vec<(String, Node)> = Vec::new();
    for item in items {
        let Some(key) = item.get(&Step::Key("key".to_owned())) else {
            return Err(ExprError::at(at, "an entry has no key"));
        };
        let name = text(key, at)?;
        let value = item.get(&Step::Key("value".to_owned())).cloned();
        entries.retain(|(have, _)| *have != name);
        entries.push((name, value.unwrap_or_else(|| Node::null(at.clone()))));
    }
    Ok(entries)
}

//! What an expression gives.
//!
//! Every result is a value and, if it is one of the description's own, the way to it from the value
//! that was asked: what `del` and assignments need. Nothing is changed in place: an assignment gives
//! the changed whole.

use super::function::Function;
use super::value::{add, equal, from_entries, has, number, subtract, text, to_entries, truth};
use super::{Down, Expr, ExprError, Kind, Op, Set};
use crate::describe::tree::{Node, Origin, Path, Scalar, Step, Value};

/// The most values that one modifier may handle, copies included: a few words must not keep a
/// machine busy for hours.
const WORK_MAX: usize = 1_000_000;

/// The whole after a modifier. Fails if that is not exactly one value.
pub(in crate::describe) fn apply(expr: &Expr, whole: &Node) -> Result<Node, ExprError> {
    let mut work = Work { left: WORK_MAX };
    let start = Item { node: whole.clone(), path: Some(Path::new()) };
    let results = work.run(expr, &start, &Variables(None))?;
    let count = results.len();
    match <[Item; 1]>::try_from(results) {
        Ok([Item { node, .. }]) => Ok(node),
        Err(_) => {
            let why = format!("it gives {count} values where one description is needed");
            Err(ExprError::at(&expr.at, why))
        }
    }
}

/// A value, and the way to it if it is part of what was asked.
#[derive(Clone)]
struct Item {
    node: Node,
    path: Option<Path>,
}

impl Item {
    fn new(node: Node) -> Item {
        Item { node, path: None }
    }
}

/// What `as` has named, the latest first.
struct Variables<'a>(Option<(&'a str, &'a Node, &'a Variables<'a>)>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<&Node> {
        let (have, node, before) = self.0?;
        if have == name { Some(node) } else { before.get(name) }
    }
}

type Results = Result<Vec<Item>, ExprError>;

struct Work {
    left: usize,
}

impl Work {
    fn run(&mut self, expr: &Expr, input: &Item, vars: &Variables) -> Results {
        let results = self.results(expr, input, vars)?;
        let cost = 1 + results.iter().map(|item| item.node.count()).sum::<usize>();
        match self.left.checked_sub(cost) {
            None => Err(ExprError::at(&expr.at, "the modifier takes too much work")),
            Some(left) => {
                self.left = left;
                Ok(results)
            }
        }
    }

    fn results(&mut self, expr: &Expr, input: &Item, vars: &Variables) -> Results {
        let new = |value| Item::new(Node { value, origin: expr.at.clone() });
        Ok(match &expr.kind {
            Kind::This => vec![input.clone()],
            Kind::All => {
                let mut all = Vec::new();
                self.collect(input, expr, &mut all)?;
                all
            }
            Kind::Literal(scalar) => vec![new(Value::Scalar(scalar.clone()))],
            Kind::List(items) => {
                let items = match items {
                    Some(items) => self.run(items, input, vars)?,
                    None => Vec::new(),
                };
                vec![new(Value::List(items.into_iter().map(|item| item.node).collect()))]
            }
            Kind::Map(entries) => vec![new(Value::Map(self.entries(entries, input, vars)?))],
            Kind::Variable(name) => match vars.get(name) {
                Some(node) => vec![Item::new(node.clone())],
                None => return Err(ExprError::at(&expr.at, format!("${name} has no value here"))),
            },
            Kind::Down { from, step } => {
                let mut found = Vec::new();
                for item in self.run(from, input, vars)? {
                    found.extend(self.down(&item, step, input, vars, &expr.at)?);
                }
                found
            }
            Kind::Pipe(first, then) => {
                let mut results = Vec::new();
                for item in self.run(first, input, vars)? {
                    results.extend(self.run(then, &item, vars)?);
                }
                results
            }
            Kind::Both(first, second) => {
                let mut results = self.run(first, input, vars)?;
                results.extend(self.run(second, input, vars)?);
                results
            }
            Kind::Bind { value, name, then } => {
                let mut results = Vec::new();
                for Item { node, .. } in self.run(value, input, vars)? {
                    let inner = Variables(Some((name, &node, vars)));
                    results.extend(self.run(then, input, &inner)?);
                }
                results
            }
            Kind::Binary(op, left, right) => {
                self.binary(*op, (left, right), input, vars, &expr.at)?
            }
            Kind::Set { target, how, value } => {
                vec![self.set(target, *how, value, input, vars, &expr.at)?]
            }
            Kind::Call(function, arguments) => {
                self.call(*function, arguments, input, vars, &expr.at)?
            }
        })
    }

    /// A value and everything below it.
    fn collect(&mut self, item: &Item, expr: &Expr, all: &mut Vec<Item>) -> Result<(), ExprError> {
        all.push(item.clone());
        for below in self.run(&each(&expr.at), item, &Variables(None))? {
            self.collect(&below, expr, all)?;
        }
        Ok(())
    }

    fn entries(
        &mut self,
        entries: &[(Expr, Expr)],
        input: &Item,
        vars: &Variables,
    ) -> Result<Vec<(String, Node)>, ExprError> {
        let mut made: Vec<(String, Node)> = Vec::new();
        for (key, value) in entries {
            let name = text(&self.one(key, input, vars)?, &key.at)?;
            let node = self.one(value, input, vars)?;
            made.retain(|(have, _)| *have != name);
            made.push((name, node));
        }
        Ok(made)
    }

    /// The only result of an expression that must have one.
    fn one(&mut self, expr: &Expr, input: &Item, vars: &Variables) -> Result<Node, ExprError> {
        let results = self.run(expr, input, vars)?;
        let count = results.len();
        match <[Item; 1]>::try_from(results) {
            Ok([Item { node, .. }]) => Ok(node),
            Err(_) => Err(ExprError::at(&expr.at, format!("it gives {count} values, not one"))),
        }
    }

    /// `outer` is what the whole path was asked of: `.a[.n]` takes `n` from it.
    fn down(
        &mut self,
        item: &Item,
        step: &Down,
        outer: &Item,
        vars: &Variables,
        at: &Origin,
    ) -> Results {
        match step {
            Down::Key(name) => child(item, &Step::Key(name.clone()), at),
            Down::Each => Ok(each_of(item)),
            Down::At(index) => {
                let index = self.one(index, outer, vars)?;
                match (&index.value, number(&index)) {
                    (Value::Scalar(Scalar { text, plain: false }), _) => {
                        child(item, &Step::Key(text.clone()), at)
                    }
                    (_, Some(n)) => nth(item, n, at),
                    _ => Err(ExprError::at(at, "an index is a number or a text")),
                }
            }
            Down::Slice(start, end) => {
                let mut bound = |expr: &Option<Box<Expr>>, otherwise: i128| match expr {
                    None => Ok(otherwise),
                    Some(expr) => {
                        let node = self.one(expr, outer, vars)?;
                        let why = "the bounds of a slice are numbers";
                        number(&node).ok_or_else(|| ExprError::at(&expr.at, why))
                    }
                };
                let items = match &item.node.value {
                    Value::List(items) => items.as_slice(),
                    _ if item.node.is_null() => &[],
                    _ => {
                        let why = format!("a slice is of a list, not of {}", item.node.kind());
                        return Err(ExprError::at(at, why));
                    }
                };
                let count = items.len();
                let start = place(bound(start, 0)?, count);
                let end = place(bound(end, i128::MAX)?, count);
                let part = items.get(start..end).unwrap_or_default().to_vec();
                let origin = item.node.origin.clone();
                Ok(vec![Item::new(Node { value: Value::List(part), origin })])
            }
        }
    }

    fn binary(
        &mut self,
        op: Op,
        (left, right): (&Expr, &Expr),
        input: &Item,
        vars: &Variables,
        at: &Origin,
    ) -> Results {
        let lefts = self.run(left, input, vars)?;
        if op == Op::Else {
            let there: Vec<Item> = lefts.into_iter().filter(|i| i.node.is_true()).collect();
            return if there.is_empty() { self.run(right, input, vars) } else { Ok(there) };
        }
        let rights = self.run(right, input, vars)?;
        let mut results = Vec::new();
        for Item { node: left, .. } in &lefts {
            for Item { node: right, .. } in &rights {
                results.push(Item::new(match op {
                    Op::Equal => truth(equal(left, right), at),
                    Op::Unequal => truth(!equal(left, right), at),
                    Op::And => truth(left.is_true() && right.is_true(), at),
                    Op::Or => truth(left.is_true() || right.is_true(), at),
                    Op::Add => add(left, right, at)?,
                    Op::Subtract | Op::Else => subtract(left, right, at)?,
                }));
            }
        }
        Ok(results)
    }

    fn set(
        &mut self,
        target: &Expr,
        how: Set,
        value: &Expr,
        input: &Item,
        vars: &Variables,
        at: &Origin,
    ) -> Result<Item, ExprError> {
        let paths = self.paths(target, input, vars)?;
        let said = match how {
            Set::Update => Vec::new(),
            Set::Plain | Set::With(_) => self.run(value, input, vars)?,
        };
        let mut whole = input.node.clone();
        for path in paths {
            let Some(place) = whole.make(&path) else {
                return Err(ExprError::at(&target.at, "there is nothing that could hold it"));
            };
            let old = place.clone();
            let new = match how {
                // As yq does: the last counts; of an update the first.
                Set::Plain => said.last().map(|item| item.node.clone()),
                Set::With(op) => match said.last() {
                    None => None,
                    Some(item) if op == Op::Add => Some(add(&old, &item.node, at)?),
                    Some(item) => Some(subtract(&old, &item.node, at)?),
                },
                Set::Update => {
                    let results = self.run(value, &Item::new(old.clone()), vars)?;
                    results.into_iter().next().map(|item| item.node)
                }
            };
            if let Some(mut new) = new {
                if let Value::Scalar(before) = &old.value
                    && !old.is_null()
                    && new.origin != old.origin
                {
                    new.origin
                        .notes
                        .push(format!("instead of {:?} from {}", before.text, old.origin));
                }
                *place = new;
            }
        }
        Ok(Item { node: whole, path: input.path.clone() })
    }

    /// The ways from the input to what `target` gives.
    fn paths(
        &mut self,
        target: &Expr,
        input: &Item,
        vars: &Variables,
    ) -> Result<Vec<Path>, ExprError> {
        let start = Item { node: input.node.clone(), path: Some(Path::new()) };
        let places = self.run(target, &start, vars)?;
        let places: Option<Vec<Path>> = places.into_iter().map(|item| item.path).collect();
        let why = "this makes a new value; only a part of the description can be changed";
        places.ok_or_else(|| ExprError::at(&target.at, why))
    }

    fn call(
        &mut self,
        function: Function,
        arguments: &[Expr],
        input: &Item,
        vars: &Variables,
        at: &Origin,
    ) -> Results {
        let node = &input.node;
        let new = |value| Item::new(Node { value, origin: at.clone() });
        let count_of = |n: usize| vec![new(Value::Scalar(Scalar::plain(n.to_string())))];
        match (function, arguments) {
            (Function::Select, [condition]) => {
                let results = self.run(condition, input, vars)?;
                let wanted = results.iter().any(|item| item.node.is_true());
                Ok(if wanted { vec![input.clone()] } else { Vec::new() })
            }
            (Function::Del, [target]) => {
                let mut paths = self.paths(target, input, vars)?;
                paths.sort();
                paths.dedup();
                if paths.iter().any(Vec::is_empty) {
                    return Err(ExprError::at(at, "the whole cannot be deleted"));
                }
                let mut whole = node.clone();
                paths.iter().rev().for_each(|path| whole.remove(path));
                Ok(vec![Item { node: whole, path: input.path.clone() }])
            }
            (Function::Test, [pattern]) => {
                let (what, pattern_at) = (text(node, at)?, &pattern.at);
                let pattern = text(&self.one(pattern, input, vars)?, pattern_at)?;
                let pattern = regex_lite::RegexBuilder::new(&pattern).size_limit(1 << 20).build();
                let pattern = pattern.map_err(|e| ExprError::at(pattern_at, e.to_string()))?;
                Ok(vec![Item::new(truth(pattern.is_match(&what), at))])
            }
            (Function::Has, [key]) => {
                let key = self.one(key, input, vars)?;
                Ok(vec![Item::new(truth(has(node, &key), at))])
            }
            (Function::Map, [what]) => {
                let mut items = Vec::new();
                for item in each_of(input) {
                    items.extend(self.run(what, &item, vars)?.into_iter().map(|item| item.node));
                }
                Ok(vec![new(Value::List(items))])
            }
            (Function::Length, []) => Ok(count_of(match &node.value {
                Value::List(items) => items.len(),
                Value::Map(entries) => entries.len(),
                Value::Scalar(_) if node.is_null() => 0,
                Value::Scalar(scalar) => scalar.text.chars().count(),
            })),
            (Function::Keys, []) => {
                let key = |scalar| Node { value: Value::Scalar(scalar), origin: at.clone() };
                let keys = match &node.value {
                    Value::Map(entries) => {
                        entries.iter().map(|(k, _)| key(Scalar::quoted(k))).collect()
                    }
                    Value::List(items) => {
                        (0..items.len()).map(|n| key(Scalar::plain(n.to_string()))).collect()
                    }
                    Value::Scalar(_) => {
                        let why =
                            format!("keys are of a mapping or a list, not of {}", node.kind());
                        return Err(ExprError::at(at, why));
                    }
                };
                Ok(vec![new(Value::List(keys))])
            }
            (Function::Not, []) => Ok(vec![Item::new(truth(!node.is_true(), at))]),
            (Function::First, []) => nth(input, 0, at),
            (Function::First, [what]) => {
                Ok(self.run(what, input, vars)?.into_iter().take(1).collect())
            }
            (Function::Limit, [count, what]) => {
                let count = self.one(count, input, vars)?;
                let count = number(&count).and_then(|n| usize::try_from(n).ok());
                let count = count.ok_or_else(|| ExprError::at(at, "limit takes a number"))?;
                Ok(self.run(what, input, vars)?.into_iter().take(count).collect())
            }
            (Function::ToEntries, []) => Ok(vec![new(Value::List(to_entries(node, at)))]),
            (Function::FromEntries, []) => Ok(vec![new(Value::Map(from_entries(node, at)?))]),
            (Function::WithEntries, [what]) => {
                let mut changed = Vec::new();
                for entry in to_entries(node, at) {
                    let results = self.run(what, &Item::new(entry), vars)?;
                    changed.extend(results.into_iter().map(|item| item.node));
                }
                let list = Node { value: Value::List(changed), origin: at.clone() };
                Ok(vec![new(Value::Map(from_entries(&list, at)?))])
            }
            // The parser knows how many arguments each takes.
            (Function::Empty, _) | (_, _) => Ok(Vec::new()),
        }
    }
}

fn each(at: &Origin) -> Expr {
    let this = Box::new(Expr { at: at.clone(), kind: Kind::This });
    Expr { at: at.clone(), kind: Kind::Down { from: this, step: Down::Each } }
}

fn below(item: &Item, step: Step, node: Node) -> Item {
    let path = item.path.as_ref().map(|path| path.iter().cloned().chain([step]).collect());
    Item { node, path }
}

/// What stands under a key: null if nothing does, so that an assignment can put something there.
fn child(item: &Item, step: &Step, at: &Origin) -> Results {
    let found = item.node.get(step).cloned();
    match (&item.node.value, found) {
        (_, Some(node)) => Ok(vec![below(item, step.clone(), node)]),
        (Value::Map(_), None) => Ok(vec![below(item, step.clone(), Node::null(at.clone()))]),
        (Value::List(_), None) => {
            Err(ExprError::at(at, "a list has numbers, not names: use [] or [0]"))
        }
        (Value::Scalar(_), None) if item.node.is_null() => {
            Ok(vec![below(item, step.clone(), Node::null(at.clone()))])
        }
        // As yq does: text has nothing below it.
        (Value::Scalar(_), None) => Ok(Vec::new()),
    }
}

fn nth(item: &Item, n: i128, at: &Origin) -> Results {
    match &item.node.value {
        Value::List(items) => {
            let count = i128::try_from(items.len()).unwrap_or(i128::MAX);
            let from_start = if n < 0 { n + count } else { n };
            let Ok(n) = usize::try_from(from_start) else {
                return Err(ExprError::at(at, format!("the list has {count} items only")));
            };
            let node = items.get(n).cloned().unwrap_or_else(|| Node::null(at.clone()));
            Ok(vec![below(item, Step::Index(n), node)])
        }
        Value::Map(_) => child(item, &Step::Key(n.to_string()), at),
        Value::Scalar(_) if item.node.is_null() => {
            let n = usize::try_from(n).unwrap_or(0);
            Ok(vec![below(item, Step::Index(n), Node::null(at.clone()))])
        }
        Value::Scalar(_) => Ok(Vec::new()),
    }
}

fn each_of(item: &Item) -> Vec<Item> {
    match &item.node.value {
        Value::List(items) => {
            let each = items.iter().enumerate();
            each.map(|(n, node)| below(item, Step::Index(n), node.clone())).collect()
        }
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| below(item, Step::Key(key.clone()), node.clone()))
            .collect(),
        Value::Scalar(_) => Vec::new(),
    }
}

/// A bound of a slice as a place in a list of `count`: negative ones count from the end.
fn place(bound: i128, count: usize) -> usize {
    let count = i128::try_from(count).unwrap_or(i128::MAX);
    let bound = if bound < 0 { bound + count } else { bound };
    usize::try_from(bound.clamp(0, count)).unwrap_or(0)
}

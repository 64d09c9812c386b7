//! Modifiers: expressions in the language of mikefarah's yq, as far as descriptions need it.
//!
//! Paths, iteration, slices, `select`, `del`, `test`, assignment (`=`, `|=`, `+=`, `-=`), literals,
//! variables and a handful of functions; [`parse`] lists them when it meets one it does not know.
//! An expression has no way to files, the environment or the clock, and its work is bounded.
//!
//! Evaluated by us, not by a library: those at hand speak jq's language, which binds `,`, `=` and
//! `+` otherwise, and none can tell where a value came from or that `0644` was written without
//! quotes.

mod eval;
mod function;
mod lex;
mod parse;
mod value;

pub(super) use eval::apply;
pub(super) use parse::{parse, parse_option};

use super::tree::Origin;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", self.place())]
pub struct ExprError {
    /// The modifier.
    pub file: String,
    /// From 1; 0: what `file` names has no lines, for it is an option.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong.
    pub why: String,
}

impl ExprError {
    fn at(origin: &Origin, why: impl Into<String>) -> ExprError {
        let (file, why) = (origin.file.to_string(), why.into());
        ExprError { file, line: origin.line, column: origin.column, why }
    }

    fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        }
    }
}

/// An expression, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    at: Origin,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// `.`
    This,
    /// `..`: a value and all below it.
    All,
    /// Text, a number, a boolean, null.
    Literal(super::tree::Scalar),
    /// `[…]`
    List(Option<Box<Expr>>),
    /// `{…}`
    Map(Vec<(Expr, Expr)>),
    /// `$name`
    Variable(String),
    /// One step down from what `from` gives.
    Down { from: Box<Expr>, step: Down },
    /// `a | b`
    Pipe(Box<Expr>, Box<Expr>),
    /// `a, b`
    Both(Box<Expr>, Box<Expr>),
    /// `value as $name | then`
    Bind { value: Box<Expr>, name: String, then: Box<Expr> },
    /// `a + b` and the like.
    Binary(Op, Box<Expr>, Box<Expr>),
    /// `target = value` and the like.
    Set { target: Box<Expr>, how: Set, value: Box<Expr> },
    /// `select(…)`
    Call(function::Function, Vec<Expr>),
}

/// A step down.
#[derive(Debug, Clone, PartialEq)]
enum Down {
    /// `.name`
    Key(String),
    /// `[0]`, `["name"]`
    At(Box<Expr>),
    /// `[1:3]`
    Slice(Option<Box<Expr>>, Option<Box<Expr>>),
    /// `[]`
    Each,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    And,
    Or,
    Add,
    Subtract,
    /// `//`
    Else,
}

/// How a target gets its new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// `=`: the value of the expression on the whole.
    Plain,
    /// `|=`: the value of the expression on the target.
    Update,
    /// `+=`, `-=`.
    With(Op),
}

//! Words to an expression.
//!
//! What binds how strongly, weakest first, is yq's order and not jq's:
//! `,` · `and` `or` · `|` · `=` `|=` `+=` `-=` `==` `!=` `as` · `+` `-` `//` · a step down.
//! Signs of one strength bind from the left.

use std::rc::Rc;

use super::function;
use super::lex::{Token, words};
use super::{Down, Expr, ExprError, Kind, Op, Set};
use crate::describe::tree::{Origin, Scalar};

/// How deep expressions may stand in each other.
const DEPTH_MAX: usize = 100;

/// Reads a modifier. `file` names it in errors and origins. Fails with the place of the first word
/// that does not fit.
pub(in crate::describe) fn parse(file: &str, text: &str) -> Result<Expr, ExprError> {
    parse_from(file, 1, text)
}

/// Reads an expression that an option stands for: one line, without a number.
pub(in crate::describe) fn parse_option(name: &str, text: &str) -> Result<Expr, ExprError> {
    parse_from(name, 0, text)
}

fn parse_from(file: &str, line: usize, text: &str) -> Result<Expr, ExprError> {
    let file = Rc::from(file);
    let words = words(&file, line, text)?;
    let end = {
        let before_end = text.trim_end();
        let line = line + before_end.lines().count().saturating_sub(1);
        let column = before_end.lines().last().map_or(0, |l| l.chars().count()) + 1;
        Origin::new(&file, line, column)
    };
    let mut parser = Parser { words: &words, next: 0, depth: 0, end };
    let expr = parser.union()?;
    match parser.words.get(parser.next) {
        None => Ok(expr),
        Some((token, at)) => Err(ExprError::at(at, format!("{} does not fit here", show(token)))),
    }
}

struct Parser<'a> {
    words: &'a [(Token, Origin)],
    next: usize,
    depth: usize,
    /// Behind the last word.
    end: Origin,
}

impl Parser<'_> {
    fn union(&mut self) -> Result<Expr, ExprError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExprError::at(&self.here(), "expressions stand too deep in each other"));
        }
        let mut left = self.logic()?;
        while let Some(at) = self.sign(",") {
            let right = self.logic()?;
            left = Expr { at, kind: Kind::Both(Box::new(left), Box::new(right)) };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn logic(&mut self) -> Result<Expr, ExprError> {
        let mut left = self.pipe()?;
        loop {
            let op = match self.peek() {
                Some(Token::Name(name)) if name == "and" => Op::And,
                Some(Token::Name(name)) if name == "or" => Op::Or,
                _ => return Ok(left),
            };
            let at = self.skip();
            let right = self.pipe()?;
            left = binary(at, op, left, right);
        }
    }

    fn pipe(&mut self) -> Result<Expr, ExprError> {
        let mut left = self.assign()?;
        loop {
            if matches!(self.peek(), Some(Token::Name(name)) if name == "as") {
                return self.bind(left);
            }
            let Some(at) = self.sign("|") else { return Ok(left) };
            let right = self.assign()?;
            if matches!(self.peek(), Some(Token::Name(name)) if name == "as") {
                let then = self.bind(right)?;
                return Ok(Expr { at, kind: Kind::Pipe(Box::new(left), Box::new(then)) });
            }
            left = Expr { at, kind: Kind::Pipe(Box::new(left), Box::new(right)) };
        }
    }

    /// `as $name | …` behind `value`.
    fn bind(&mut self, value: Expr) -> Result<Expr, ExprError> {
        let at = self.skip();
        let name = match self.peek() {
            Some(Token::Variable(name)) => name.clone(),
            _ => return Err(self.expected("a variable, as in `as $name`")),
        };
        self.skip();
        self.need("|")?;
        self.deeper()?;
        let then = Box::new(self.pipe()?);
        self.depth -= 1;
        Ok(Expr { at, kind: Kind::Bind { value: Box::new(value), name, then } })
    }

    fn assign(&mut self) -> Result<Expr, ExprError> {
        let mut left = self.sum()?;
        loop {
            let Some(Token::Sign(sign)) = self.peek() else { return Ok(left) };
            let how = match *sign {
                "=" => Ok(Set::Plain),
                "|=" => Ok(Set::Update),
                "+=" => Ok(Set::With(Op::Add)),
                "-=" => Ok(Set::With(Op::Subtract)),
                "==" => Err(Op::Equal),
                "!=" => Err(Op::Unequal),
                _ => return Ok(left),
            };
            let at = self.skip();
            let right = self.sum()?;
            left = match how {
                Err(op) => binary(at, op, left, right),
                Ok(how) => {
                    let (target, value) = (Box::new(left), Box::new(right));
                    Expr { at, kind: Kind::Set { target, how, value } }
                }
            };
        }
    }

    fn sum(&mut self) -> Result<Expr, ExprError> {
        let mut left = self.steps()?;
        loop {
            let op = match self.peek() {
                Some(Token::Sign("+")) => Op::Add,
                Some(Token::Sign("-")) => Op::Subtract,
                Some(Token::Sign("//")) => Op::Else,
                _ => return Ok(left),
            };
            let at = self.skip();
            let right = self.steps()?;
            left = binary(at, op, left, right);
        }
    }

    /// A value and the steps down from it.
    fn steps(&mut self) -> Result<Expr, ExprError> {
        let mut expr = self.value()?;
        loop {
            let at = self.here();
            let step = match self.peek() {
                Some(Token::Field(name)) => {
                    let step = Down::Key(name.clone());
                    self.skip();
                    step
                }
                Some(Token::Sign("[")) => self.brackets()?,
                // `.a.[0]` is `.a[0]`
                Some(Token::Sign(".")) if self.peek_second() == Some(&Token::Sign("[")) => {
                    self.skip();
                    self.brackets()?
                }
                _ => return Ok(expr),
            };
            expr = Expr { at, kind: Kind::Down { from: Box::new(expr), step } };
        }
    }

    fn brackets(&mut self) -> Result<Down, ExprError> {
        self.skip();
        if self.sign("]").is_some() {
            return Ok(Down::Each);
        }
        if self.sign(":").is_some() {
            let end = self.boxed()?;
            self.need("]")?;
            return Ok(Down::Slice(None, Some(end)));
        }
        let first = self.boxed()?;
        if self.sign(":").is_none() {
            self.need("]")?;
            return Ok(Down::At(first));
        }
        if self.sign("]").is_some() {
            return Ok(Down::Slice(Some(first), None));
        }
        let end = self.boxed()?;
        self.need("]")?;
        Ok(Down::Slice(Some(first), Some(end)))
    }

    fn boxed(&mut self) -> Result<Box<Expr>, ExprError> {
        self.union().map(Box::new)
    }

    fn value(&mut self) -> Result<Expr, ExprError> {
        let Some((token, at)) = self.words.get(self.next).cloned() else {
            return Err(self.expected("a value"));
        };
        let this = || Box::new(Expr { at: at.clone(), kind: Kind::This });
        let kind = match token {
            Token::Text(text) => Kind::Literal(Scalar::quoted(text)),
            Token::Number(text) => {
                let number = Scalar::plain(text);
                if !crate::compose::yaml::is_number(&number.text) {
                    return Err(ExprError::at(&at, format!("{} is no number", number.text)));
                }
                Kind::Literal(number)
            }
            Token::Variable(name) => Kind::Variable(name),
            Token::Field(name) => Kind::Down { from: this(), step: Down::Key(name) },
            Token::Sign(".") => Kind::This,
            Token::Sign("..") => Kind::All,
            Token::Sign("(") => {
                self.skip();
                let inner = self.union()?;
                self.need(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => {
                self.skip();
                if self.sign("]").is_some() {
                    return Ok(Expr { at, kind: Kind::List(None) });
                }
                let items = self.boxed()?;
                self.need("]")?;
                return Ok(Expr { at, kind: Kind::List(Some(items)) });
            }
            Token::Sign("{") => {
                self.skip();
                let entries = self.entries()?;
                return Ok(Expr { at, kind: Kind::Map(entries) });
            }
            Token::Name(name) if matches!(name.as_str(), "true" | "false" | "null") => {
                Kind::Literal(Scalar::plain(name))
            }
            Token::Name(name) => {
                self.skip();
                return self.call(&name, at);
            }
            Token::Sign(_) => return Err(self.expected("a value")),
        };
        self.skip();
        Ok(Expr { at, kind })
    }

    fn call(&mut self, name: &str, at: Origin) -> Result<Expr, ExprError> {
        let mut arguments = Vec::new();
        if self.sign("(").is_some() {
            loop {
                arguments.push(self.union()?);
                if self.sign(";").is_none() {
                    break;
                }
            }
            self.need(")")?;
        }
        let function = function::find(name, arguments.len());
        let function = function.map_err(|why| ExprError::at(&at, why))?;
        Ok(Expr { at, kind: Kind::Call(function, arguments) })
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, ExprError> {
        let mut entries = Vec::new();
        if self.sign("}").is_some() {
            return Ok(entries);
        }
        loop {
            let at = self.here();
            let key = match self.peek() {
                Some(Token::Name(name) | Token::Text(name)) => {
                    let kind = Kind::Literal(Scalar::quoted(name.clone()));
                    self.skip();
                    Expr { at, kind }
                }
                Some(Token::Sign("(")) => {
                    self.skip();
                    let key = self.union()?;
                    self.need(")")?;
                    key
                }
                _ => return Err(self.expected("a key: a name, a text or (…)")),
            };
            self.need(":")?;
            self.deeper()?;
            entries.push((key, self.logic()?));
            self.depth -= 1;
            if self.sign(",").is_none() {
                self.need("}")?;
                return Ok(entries);
            }
        }
    }

    fn deeper(&mut self) -> Result<(), ExprError> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => Err(ExprError::at(&self.here(), "expressions stand too deep in each other")),
            false => Ok(()),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.words.get(self.next).map(|(token, _)| token)
    }

    fn peek_second(&self) -> Option<&Token> {
        self.words.get(self.next + 1).map(|(token, _)| token)
    }

    fn here(&self) -> Origin {
        self.words.get(self.next).map_or_else(|| self.end.clone(), |(_, at)| at.clone())
    }

    /// Steps over a word; where it stood.
    fn skip(&mut self) -> Origin {
        let at = self.here();
        self.next += 1;
        at
    }

    /// Steps over a sign if it is next.
    fn sign(&mut self, wanted: &str) -> Option<Origin> {
        match self.peek() {
            Some(Token::Sign(sign)) if *sign == wanted => Some(self.skip()),
            _ => None,
        }
    }

    fn need(&mut self, wanted: &str) -> Result<(), ExprError> {
        match self.sign(wanted) {
            Some(_) => Ok(()),
            None => Err(self.expected(&format!("`{wanted}`"))),
        }
    }

    fn expected(&self, what: &str) -> ExprError {
        let found = self.peek().map_or_else(|| "the end".to_owned(), show);
        ExprError::at(&self.here(), format!("expected {what}, found {found}"))
    }
}

fn binary(at: Origin, op: Op, left: Expr, right: Expr) -> Expr {
    Expr { at, kind: Kind::Binary(op, Box::new(left), Box::new(right)) }
}

fn show(token: &Token) -> String {
    match token {
        Token::Field(name) => format!("`.{name}`"),
        Token::Name(name) => format!("`{name}`"),
        Token::Variable(name) => format!("`${name}`"),
        Token::Text(text) => format!("{text:?}"),
        Token::Number(text) => format!("`{text}`"),
        Token::Sign(sign) => format!("`{sign}`"),
    }
}

//! An expression's words.

use std::rc::Rc;

use super::ExprError;
use crate::describe::tree::Origin;

/// The longest modifier we read. The longest we know has 300 bytes.
const TEXT_MAX: usize = 64 << 10;
/// The most words of one. An expression may stand as deep in others as it has words.
const WORDS_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.name`, `."name"`
    Field(String),
    /// A name without a dot: a function, a key, `true`.
    Name(String),
    /// `$name`
    Variable(String),
    Text(String),
    /// Digits as they stand, perhaps with a sign.
    Number(String),
    /// Everything else, longest first.
    Sign(&'static str),
}

/// What stands for itself. A sign comes before the signs that it begins with.
const SIGNS: [&str; 23] = [
    "..", "|=", "+=", "-=", "==", "!=", "//", "<", ">", "*", ".", "[", "]", "(", ")", "{", "}",
    ",", "|", "=", "+", ":", ";",
];

/// The words of a text, each with its place; `line` is the number of the first line.
pub(super) fn words(
    file: &Rc<str>,
    line: usize,
    text: &str,
) -> Result<Vec<(Token, Origin)>, ExprError> {
    let mut lexer = Lexer { file, rest: text, line, column: 1 };
    if text.len() > TEXT_MAX {
        let why = format!("the modifier has {} bytes, more than {TEXT_MAX}", text.len());
        return Err(ExprError::at(&lexer.here(), why));
    }
    let mut words: Vec<(Token, Origin)> = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.here();
        match lexer.next(words.last().map(|(token, _)| token))? {
            None => return Ok(words),
            Some(_) if words.len() == WORDS_MAX => {
                let why = format!("the modifier has more than {WORDS_MAX} words");
                return Err(ExprError::at(&at, why));
            }
            Some(token) => words.push((token, at)),
        }
    }
}

struct Lexer<'a> {
    file: &'a Rc<str>,
    rest: &'a str,
    line: usize,
    column: usize,
}

impl Lexer<'_> {
    fn here(&self) -> Origin {
        Origin::new(self.file, self.line, self.column)
    }

    fn take(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, is: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !is(c)).unwrap_or(self.rest.len());
        self.take(end).to_owned()
    }

    /// White space and comments.
    fn skip_space(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn next(&mut self, before: Option<&Token>) -> Result<Option<Token>, ExprError> {
        let mut chars = self.rest.chars();
        let (Some(first), second) = (chars.next(), chars.next()) else { return Ok(None) };
        let token = match (first, second) {
            ('"', _) => Token::Text(self.string()?),
            ('.', Some('"')) => {
                self.take(1);
                Token::Field(self.string()?)
            }
            ('.', Some(c)) if starts_name(c) => {
                self.take(1);
                Token::Field(self.take_while(|c| in_name(c) || c == '-'))
            }
            ('$', Some(c)) if starts_name(c) => {
                self.take(1);
                Token::Variable(self.take_while(in_name))
            }
            (c, _) if starts_name(c) => Token::Name(self.take_while(in_name)),
            (c, _) if c.is_ascii_digit() => Token::Number(self.number()),
            ('-', Some(c)) if c.is_ascii_digit() && !before.is_some_and(ends_value) => {
                self.take(1);
                Token::Number(format!("-{}", self.number()))
            }
            ('-', _) if !self.rest.starts_with("-=") => {
                self.take(1);
                Token::Sign("-")
            }
            _ => match SIGNS.iter().find(|sign| self.rest.starts_with(**sign)) {
                Some(sign) => {
                    self.take(sign.len());
                    Token::Sign(sign)
                }
                None => {
                    return Err(ExprError::at(
                        &self.here(),
                        format!("{first:?} means nothing here"),
                    ));
                }
            },
        };
        Ok(Some(token))
    }

    fn number(&mut self) -> String {
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
    }

    fn string(&mut self) -> Result<String, ExprError> {
        let start = self.here();
        self.take(1);
        let mut text = String::new();
        loop {
            text.push_str(&self.take_while(|c| c != '"' && c != '\\'));
            let at = self.here();
            let mut chars = self.rest.chars();
            match (chars.next(), chars.next()) {
                (None, _) => return Err(ExprError::at(&start, "this text has no end")),
                (Some('"'), _) => {
                    self.take(1);
                    return Ok(text);
                }
                (_, escape) => {
                    text.push(match escape {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some(c @ ('"' | '\\' | '/')) => c,
                        _ => {
                            let why =
                                r#"only \n, \t, \r, \", \/ and \\ are known behind a backslash"#;
                            return Err(ExprError::at(&at, why));
                        }
                    });
                    self.take(2);
                }
            }
        }
    }
}

fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether a minus behind it subtracts.
fn ends_value(token: &Token) -> bool {
    !matches!(token, Token::Sign(sign) if !matches!(*sign, "." | ".." | "]" | ")" | "}"))
}

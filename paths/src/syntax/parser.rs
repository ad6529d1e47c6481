//! Tokens as trees.

use super::lexer::{Token, tokens};
use super::{At, Expression, Literal, Mistake, Operator};

/// How deep an expression may nest: parsing and compiling use the stack.
const MAX_DEPTH: usize = 100;
/// How many operators of one level may follow each other: HL7's longest union has some fifty.
const MAX_OPERATORS: usize = 200;
/// How deep the tree may be: what is in parentheses may be as long as what is around it.
const MAX_TREE: usize = 300;
/// The most bytes of an expression.
const MAX_BYTES: usize = 100_000;
/// The most tokens of an expression: HL7's longest has less than a thousand.
const MAX_TOKENS: usize = 4000;

/// Reads an expression.
///
/// # Errors
/// What is not FHIRPath, is longer than 100,000 bytes or 4000 tokens, or nests deeper than a hundred levels.
pub fn parse(text: &str) -> Result<Expression, Mistake> {
    if text.len() > MAX_BYTES {
        return Err(Mistake::new(format!("an expression of {} bytes is too long", text.len())));
    }
    let tokens = tokens(text)?;
    if tokens.len() > MAX_TOKENS {
        return Err(Mistake::new(format!("an expression of {} tokens is too long", tokens.len())));
    }
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expression = parser.operation(0)?;
    parser.expect_end()?;
    if expression.depth() > MAX_TREE {
        return Err(Mistake::new("the expression is nested too deep"));
    }
    Ok(expression)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

/// The binary operators from the loosest to the tightest; `is` and `as` come between [`TYPES`] and the next.
const LEVELS: [&[(&str, Operator)]; 9] = [
    &[("implies", Operator::Implies)],
    &[("or", Operator::Or), ("xor", Operator::Xor)],
    &[("and", Operator::And)],
    &[("in", Operator::In), ("contains", Operator::Contains)],
    &[("=", Operator::Equal), ("~", Operator::Equivalent), ("!=", Operator::NotEqual), ("!~", Operator::NotEquivalent)],
    &[("<", Operator::Less), ("<=", Operator::LessOrEqual), (">", Operator::Greater), (">=", Operator::GreaterOrEqual)],
    &[("|", Operator::Union)],
    &[("+", Operator::Add), ("-", Operator::Subtract), ("&", Operator::Concatenate)],
    &[("*", Operator::Multiply), ("/", Operator::Divide), ("div", Operator::Div), ("mod", Operator::Mod)],
];
/// The level whose operands may be followed by `is` or `as`.
const TYPES: usize = 7;

impl Parser {
    /// Where the next token stands.
    fn place(&self) -> At {
        At(self.tokens[self.at].0)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].1.clone();
        // The end stays.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is(&self, sign: &str) -> bool {
        match self.peek() {
            Token::Sign(found) => *found == sign,
            Token::Name(name) => name == sign,
            _ => false,
        }
    }

    fn skip(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Mistake> {
        if self.skip(sign) { Ok(()) } else { Err(self.unexpected(&format!("expected {sign}"))) }
    }

    fn expect_end(&self) -> Result<(), Mistake> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected("expected an operator")) }
    }

    fn unexpected(&self, expected: &str) -> Mistake {
        Mistake::at(self.tokens[self.at].0, expected)
    }

    /// An operation of a level, or of a tighter one.
    fn operation(&mut self, level: usize) -> Result<Expression, Mistake> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.operand(level)?;
        let mut count = 0;
        while let Some((sign, operator)) = operators.iter().find(|(sign, _)| self.is(sign)) {
            let at = self.place();
            self.expect(sign)?;
            self.deeper()?;
            let right = self.operand(level)?;
            self.depth -= 1;
            left = Expression::Binary(Box::new(left), *operator, Box::new(right), at);
            // The tree is as deep as they are many.
            count += 1;
            if count > MAX_OPERATORS {
                return Err(self.unexpected("too many operators"));
            }
        }
        Ok(left)
    }

    fn operand(&mut self, level: usize) -> Result<Expression, Mistake> {
        let mut operand = self.operation(level + 1)?;
        while level + 1 == TYPES && (self.is("is") || self.is("as")) {
            let is = self.skip("is") || !self.skip("as");
            let at = self.place();
            let name = self.type_name()?;
            let of = Box::new(operand);
            operand = if is { Expression::Is(of, name, at) } else { Expression::As(of, name, at) };
        }
        Ok(operand)
    }

    fn unary(&mut self) -> Result<Expression, Mistake> {
        let at = self.place();
        if self.skip("-") {
            self.deeper()?;
            let of = self.unary()?;
            self.depth -= 1;
            return Ok(Expression::Negative(Box::new(of), at));
        }
        self.skip("+");
        self.path()
    }

    /// A term, and what is called on it.
    fn path(&mut self) -> Result<Expression, Mistake> {
        self.deeper()?;
        let mut path = self.term()?;
        let mut steps = 0;
        loop {
            if self.skip(".") {
                path = self.invocation(path)?;
            } else if self.skip("[") {
                let index = self.operation(0)?;
                self.expect("]")?;
                path = Expression::Index(Box::new(path), Box::new(index));
            } else {
                self.depth -= 1;
                return Ok(path);
            }
            steps += 1;
            // A tree of steps is as deep as they are many.
            if steps > MAX_DEPTH {
                return Err(self.unexpected("too many steps"));
            }
        }
    }

    fn term(&mut self) -> Result<Expression, Mistake> {
        let at = self.place();
        let literal = |literal| Ok(Expression::Literal(literal, at));
        match self.peek().clone() {
            Token::Sign("(") => {
                self.next();
                let inside = self.operation(0)?;
                self.expect(")")?;
                Ok(inside)
            }
            Token::Sign("{") => {
                self.next();
                self.expect("}")?;
                literal(Literal::Empty)
            }
            Token::Text(text) => {
                self.next();
                literal(Literal::Text(text))
            }
            Token::Number(number) => {
                self.next();
                literal(Literal::Number(number))
            }
            Token::Time(time) => {
                self.next();
                literal(Literal::Time(time))
            }
            Token::Variable(name) => {
                self.next();
                Ok(Expression::Variable(name, at))
            }
            Token::Special(name) if name == "this" => {
                self.next();
                Ok(Expression::This)
            }
            Token::Name(name) if name == "true" || name == "false" => {
                self.next();
                literal(Literal::Boolean(name == "true"))
            }
            Token::Name(_) | Token::Quoted(_) => self.invocation(Expression::This),
            _ => Err(self.unexpected("expected a path or a value")),
        }
    }

    /// A member or a call.
    fn invocation(&mut self, of: Expression) -> Result<Expression, Mistake> {
        let at = self.place();
        let name = match self.peek() {
            Token::Name(name) | Token::Quoted(name) => name.clone(),
            Token::Special(name) if name == "this" => {
                self.next();
                return Ok(of);
            }
            _ => return Err(self.unexpected("expected a name")),
        };
        self.next();
        if !self.skip("(") {
            return Ok(Expression::Member(Box::new(of), name, at));
        }
        let mut arguments = Vec::new();
        while !self.skip(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.operation(0)?);
        }
        Ok(Expression::Call(Box::new(of), name, arguments, at))
    }

    /// A type's name, without `FHIR.` or `System.` before it.
    fn type_name(&mut self) -> Result<String, Mistake> {
        let mut part = || match self.peek().clone() {
            Token::Name(name) | Token::Quoted(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("expected a type")),
        };
        let name = part()?;
        if matches!(name.as_str(), "FHIR" | "System") {
            self.expect(".")?;
            return self.type_name();
        }
        Ok(name)
    }

    fn deeper(&mut self) -> Result<(), Mistake> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.unexpected("nested too deep")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(of: Expression, name: &str) -> Expression {
        Expression::Member(Box::new(of), name.to_owned(), At(0))
    }

    #[test]
    fn operators_bind_as_fhirpath_says() {
        // A union binds tighter than a comparison, and looser than `as`.
        let name = |name| Box::new(member(Expression::This, name));
        let union = Expression::Binary(
            name("a"),
            Operator::Union,
            Box::new(Expression::As(name("b"), "Quantity".to_owned(), At(0))),
            At(0),
        );
        let compared = Expression::Binary(Box::new(union), Operator::NotEqual, name("c"), At(0));
        let both = Expression::Binary(Box::new(compared), Operator::And, name("d"), At(0));
        assert_eq!(parse("a | b as FHIR.Quantity != c and d").unwrap(), both);
        assert_eq!(parse("(a | (b as Quantity)) != (c) /* why */ and `d` // because").unwrap(), both);
    }

    #[test]
    fn literals_and_calls() {
        let url = Expression::Literal(Literal::Text("it's \\ \u{e9}".to_owned()), At(0));
        let call = Expression::Call(Box::new(member(Expression::This, "a")), "extension".to_owned(), vec![url], At(0));
        assert_eq!(parse(r"a.extension('it\'s \\ \u00e9').value").unwrap(), member(call, "value"));
        for (text, literal) in [
            ("1.50", Literal::Number("1.50".to_owned())),
            ("@2020-01-01T00:00:00+01:00", Literal::Time("2020-01-01T00:00:00+01:00".to_owned())),
            ("{}", Literal::Empty),
            ("true", Literal::Boolean(true)),
        ] {
            assert_eq!(parse(text).unwrap(), Expression::Literal(literal, At(0)));
        }
        let number = Expression::Literal(Literal::Number("1".to_owned()), At(0));
        assert_eq!(parse("1.a").unwrap(), member(number, "a"));
    }

    #[test]
    fn what_is_not_an_expression_is_refused_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("a.", 2),
            ("a b", 2),
            ("a.where(b", 9),
            ("'a", 0),
            (r"'\x'", 1),
            (r"'\u12", 1),
            ("a # b", 2),
            ("a[", 2),
            ("a is", 4),
            ("%", 0),
            ("/* a", 0),
            ("\u{e9}", 0),
        ] {
            assert_eq!(parse(text).unwrap_err().at, Some(at), "{text}");
        }
        for deep in [
            "(".repeat(10_000),
            "-".repeat(10_000),
            "a.".repeat(10_000) + "a",
            "a[".repeat(10_000),
            "a|".repeat(10_000) + "a",
            // Each level is short enough, and together they would be too deep for the stack.
            (0..90).fold("a".to_owned(), |inner, _| format!("({inner}{})", " or a".repeat(20))),
            (0..90).fold("a".to_owned(), |inner, _| format!("({inner}{})", ".a".repeat(20))),
            (0..90).fold("a".to_owned(), |inner, _| format!("({inner}{})", "|a".repeat(199))),
        ] {
            assert!(parse(&deep).is_err());
        }
        assert!(parse(&" ".repeat(200_000)).is_err());
    }
}

//! Reads the text form that [`super::print`](mod@super::print) writes.
//!
//! The parser checks the grammar and that names are defined once somewhere in their function; everything else
//! (types, scopes, counts of results) is left to [`super::verify`](mod@super::verify), so that a text can state a
//! program that breaks a rule. Line breaks have no meaning, and `;` starts a comment.

mod lex;

use super::inst::*;
use super::ty::{Prim, Ty};
use lex::{Token, lex};
use std::collections::HashMap;

/// Where a text leaves the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What would have been right.
    pub expected: String,
    /// What is there.
    pub found: String,
}

type Parsed<T> = Result<T, ParseError>;

/// Blocks nest at most so deep: the parser and all that read a function recurse over them.
const MAX_DEPTH: usize = 200;

/// Reads a module.
pub fn parse(text: &str) -> Parsed<Module> {
    let tokens = lex(text)?;
    let funcs = function_names(&tokens);
    let mut parser = Parser { tokens, at: 0, funcs, module: Module::default() };
    while parser.peek() != &Token::End {
        parser.item()?;
    }
    Ok(parser.module)
}

/// Functions may be named before their definition.
fn function_names(tokens: &[(Token, usize)]) -> HashMap<String, FuncId> {
    let mut names = HashMap::new();
    let mut next = 0;
    for window in tokens.windows(3) {
        let [(Token::Word(keyword), _), (Token::Punct("@"), _), (Token::Word(name) | Token::Str(name), _)] = window
        else {
            continue;
        };
        if keyword == "func" {
            names.entry(name.clone()).or_insert(FuncId(next));
            next += 1;
        }
    }
    names
}

/// The operation of that name.
fn by_name<T: Copy>(all: &[T], name: fn(T) -> &'static str, word: &str) -> Option<T> {
    all.iter().copied().find(|&op| name(op) == word)
}

/// The type of that name, such as `i64` or `f32x8`.
fn ty_by_name(word: &str) -> Option<Ty> {
    if let Some(prim) = by_name(&Prim::ALL, Prim::name, word) {
        return Some(Ty::scalar(prim));
    }
    let (prim, lanes) = word.split_once('x')?;
    let lanes = number(lanes).and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 1)?;
    Some(Ty::vector(by_name(&Prim::ALL, Prim::name, prim)?, lanes))
}

/// Digits without sign or leading zero.
fn number(digits: &str) -> Option<u32> {
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if canonical { digits.parse().ok() } else { None }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    funcs: HashMap<String, FuncId>,
    module: Module,
}

// Tokens.
impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn line(&self) -> usize {
        self.tokens[self.at].1
    }

    fn error<T>(&self, expected: impl Into<String>) -> Parsed<T> {
        Err(ParseError { line: self.line(), expected: expected.into(), found: self.peek().to_string() })
    }

    /// Goes to the next token and gives the value made from this one.
    fn accept<T>(&mut self, value: T) -> T {
        // The end is never passed.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        value
    }

    /// Gives what `read` makes of the token; it stays where it is if that is nothing.
    fn one<T>(&mut self, expected: &str, read: impl FnOnce(&Token) -> Option<T>) -> Parsed<T> {
        match read(self.peek()) {
            Some(value) => Ok(self.accept(value)),
            None => self.error(expected),
        }
    }

    fn eat(&mut self, punct: &'static str) -> bool {
        let found = self.peek() == &Token::Punct(punct);
        if found { self.accept(true) } else { false }
    }

    fn punct(&mut self, punct: &'static str) -> Parsed<()> {
        if self.eat(punct) { Ok(()) } else { self.error(format!("`{punct}`")) }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(w) if w == word);
        if found { self.accept(true) } else { false }
    }

    fn keyword(&mut self, word: &str) -> Parsed<()> {
        if self.eat_word(word) { Ok(()) } else { self.error(format!("`{word}`")) }
    }

    fn word(&mut self, expected: &str) -> Parsed<String> {
        self.one(expected, |t| match t {
            Token::Word(word) => Some(word.clone()),
            _ => None,
        })
    }

    fn name(&mut self) -> Parsed<String> {
        self.one("a name", |t| match t {
            Token::Word(text) | Token::Str(text) => Some(text.clone()),
            _ => None,
        })
    }

    fn int<T: TryFrom<i128>>(&mut self, expected: &str) -> Parsed<T> {
        self.one(expected, |t| match t {
            Token::Int(i) => T::try_from(*i).ok(),
            _ => None,
        })
    }

    fn ty(&mut self) -> Parsed<Ty> {
        self.one("a type", |t| match t {
            Token::Word(word) => ty_by_name(word),
            _ => None,
        })
    }

    /// The operation of the kind `T` that a word names.
    fn op_name<T: Copy>(&mut self, what: &str, all: &[T], name: fn(T) -> &'static str) -> Parsed<T> {
        self.one(what, |t| match t {
            Token::Word(word) => by_name(all, name, word),
            _ => None,
        })
    }

    /// Items between parentheses, with commas.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Parser) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.punct("(")?;
        let mut items = vec![];
        while !self.eat(")") {
            if !items.is_empty() {
                self.punct(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

// Items of a module.
impl Parser {
    fn item(&mut self) -> Parsed<()> {
        if self.eat_word("extern") {
            self.external()
        } else if self.eat_word("site") {
            self.site()
        } else if self.eat_word("func") {
            self.func(false)
        } else if self.eat_word("cold") {
            self.keyword("func")?;
            self.func(true)
        } else {
            self.error("`extern`, `site` or `func`")
        }
    }

    fn external(&mut self) -> Parsed<()> {
        let name = self.name()?;
        let params = self.list(Parser::ty)?;
        let ret = if self.eat("->") { Some(self.ty()?) } else { None };
        self.module.externs.push(Extern { name, params, ret });
        Ok(())
    }

    fn site(&mut self) -> Parsed<()> {
        let next = self.module.sites.len() as i128 + 1;
        self.one(&format!("`{next}`, as sites are numbered in order"), |t| (t == &Token::Int(next)).then_some(()))?;
        let kind = self.op_name("a kind of failure", FailKind::ALL, FailKind::name)?;
        let message = self.one("a message in quotes", |t| match t {
            Token::Str(text) => Some(text.clone()),
            _ => None,
        })?;
        self.module.sites.push(FailSite { kind, message });
        Ok(())
    }

    fn func(&mut self, cold: bool) -> Parsed<()> {
        self.punct("@")?;
        let name = self.name()?;
        let blocks = vec![BlockData::default()];
        let func = Func { name, cold, params: vec![], values: vec![], insts: vec![], blocks, entry: Block(0) };
        let mut body = Body { p: self, func, names: HashMap::new(), depth: 0 };
        body.params()?;
        let entry = body.func.entry;
        body.block(entry)?;
        body.all_defined()?;
        let func = body.func;
        self.module.funcs.push(func);
        Ok(())
    }
}

/// What is known about a name such as `v4`.
struct Name {
    value: Value,
    /// The line of the first use, until the definition is met.
    used: Option<usize>,
}

/// The function that is being read.
struct Body<'a> {
    p: &'a mut Parser,
    func: Func,
    names: HashMap<u32, Name>,
    depth: usize,
}

// Values.
impl Body<'_> {
    fn number(&mut self) -> Parsed<u32> {
        self.p.one("a value", |t| match t {
            Token::Word(word) => word.strip_prefix('v').and_then(number),
            _ => None,
        })
    }

    fn at_value(&self) -> bool {
        matches!(self.p.peek(), Token::Word(word) if word.strip_prefix('v').and_then(number).is_some())
    }

    /// A value that is used; its definition may follow.
    fn value(&mut self) -> Parsed<Value> {
        let line = self.p.line();
        let number = self.number()?;
        if let Some(name) = self.names.get(&number) {
            return Ok(name.value);
        }
        let value = self.fresh();
        self.names.insert(number, Name { value, used: Some(line) });
        Ok(value)
    }

    /// A value whose type and origin are not known yet.
    fn fresh(&mut self) -> Value {
        let value = Value(self.func.values.len() as u32);
        self.func.values.push(ValueData { ty: Ty::BOOL, def: ValueDef::Param(u32::MAX) });
        value
    }

    /// `v4: i64`, defined here.
    fn definition(&mut self, def: ValueDef) -> Parsed<Value> {
        let (line, found) = (self.p.line(), self.p.peek().to_string());
        let number = self.number()?;
        self.p.punct(":")?;
        let ty = self.p.ty()?;
        let value = match self.names.get(&number) {
            Some(Name { used: None, .. }) => {
                return Err(ParseError { line, expected: "a value that is not defined yet".into(), found });
            }
            Some(name) => name.value,
            None => self.fresh(),
        };
        self.names.insert(number, Name { value, used: None });
        self.func.values[value.index()] = ValueData { ty, def };
        Ok(value)
    }

    fn all_defined(&self) -> Parsed<()> {
        let missing = self.names.iter().filter_map(|(number, name)| Some((name.used?, number))).min();
        match missing {
            None => Ok(()),
            Some((line, number)) => Err(ParseError {
                line,
                expected: "a value that the function defines".into(),
                found: format!("`v{number}`"),
            }),
        }
    }

    fn params(&mut self) -> Parsed<()> {
        self.p.punct("(")?;
        while !self.p.eat(")") {
            let position = self.func.params.len() as u32;
            if position > 0 {
                self.p.punct(",")?;
            }
            let param = self.definition(ValueDef::Param(position))?;
            self.func.params.push(param);
        }
        Ok(())
    }

    /// A parameter of `block`, after those it has.
    fn block_param(&mut self, block: Block) -> Parsed<()> {
        let position = self.func.block(block).params.len() as u32;
        let param = self.definition(ValueDef::BlockParam(block, position))?;
        self.func.blocks[block.index()].params.push(param);
        Ok(())
    }

    fn comma_value(&mut self) -> Parsed<Value> {
        self.p.punct(",")?;
        self.value()
    }

    fn values(&mut self) -> Parsed<Vec<Value>> {
        self.p.punct("(")?;
        let mut values = vec![];
        while !self.p.eat(")") {
            if !values.is_empty() {
                self.p.punct(",")?;
            }
            values.push(self.value()?);
        }
        Ok(values)
    }
}

// Blocks.
impl Body<'_> {
    fn new_block(&mut self) -> Block {
        self.func.add_block(&[])
    }

    /// `{ instructions yield values }`
    fn block(&mut self, block: Block) -> Parsed<()> {
        if self.depth >= MAX_DEPTH {
            return self.p.error(format!("blocks nested at most {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        self.p.punct("{")?;
        while !self.p.eat_word("yield") {
            let inst = self.inst()?;
            self.func.blocks[block.index()].insts.push(inst);
        }
        let mut yields = vec![];
        while !self.p.eat("}") {
            yields.push(if yields.is_empty() { self.value()? } else { self.comma_value()? });
        }
        self.func.blocks[block.index()].yields = yields;
        self.depth -= 1;
        Ok(())
    }

    fn inst(&mut self) -> Parsed<Inst> {
        // The instruction takes its place before those of the blocks below it.
        let (inst, _) = self.func.add_inst(Op::Iota, &[]);
        let mut results = vec![];
        if self.at_value() {
            results.push(self.definition(ValueDef::Result(inst, 0))?);
            while self.p.eat(",") {
                results.push(self.definition(ValueDef::Result(inst, results.len() as u32))?);
            }
            self.p.punct("=")?;
        }
        let op = self.op()?;
        self.func.insts[inst.index()] = InstData { op, results };
        Ok(inst)
    }

    fn if_(&mut self) -> Parsed<Op> {
        let cond = self.value()?;
        let (then, els) = (self.new_block(), self.new_block());
        self.block(then)?;
        self.p.keyword("else")?;
        self.block(els)?;
        Ok(Op::If { cond, then, els })
    }

    fn for_(&mut self) -> Parsed<Op> {
        let body = self.new_block();
        self.block_param(body)?;
        self.p.keyword("in")?;
        let lo = self.value()?;
        self.p.punct("..")?;
        let hi = self.value()?;
        self.p.keyword("step")?;
        let step = self.p.int("a step")?;
        let init = self.carried(body)?;
        self.block(body)?;
        Ok(Op::For { lo, hi, step, init, body })
    }

    fn while_(&mut self) -> Parsed<Op> {
        let (cond, body) = (self.new_block(), self.new_block());
        let init = self.carried(cond)?;
        self.block(cond)?;
        self.p.keyword("do")?;
        self.p.punct("(")?;
        while !self.p.eat(")") {
            if !self.func.block(body).params.is_empty() {
                self.p.punct(",")?;
            }
            self.block_param(body)?;
        }
        self.block(body)?;
        Ok(Op::While { init, cond, body })
    }

    /// `(v5: i64 = v2, …)`: more parameters of `block`, and their first values.
    fn carried(&mut self, block: Block) -> Parsed<Vec<Value>> {
        self.p.punct("(")?;
        let mut init = vec![];
        while !self.p.eat(")") {
            if !init.is_empty() {
                self.p.punct(",")?;
            }
            self.block_param(block)?;
            self.p.punct("=")?;
            init.push(self.value()?);
        }
        Ok(init)
    }
}

// Operations.
impl Body<'_> {
    fn op(&mut self) -> Parsed<Op> {
        let at = self.p.at;
        let word = self.p.word("an instruction or `yield`")?;
        if let Some(op) = by_name(UnOp::ALL, UnOp::name, &word) {
            return Ok(Op::Un(op, self.value()?));
        }
        if let Some(op) = by_name(BinOp::ALL, BinOp::name, &word) {
            return Ok(Op::Bin(op, self.value()?, self.comma_value()?));
        }
        if let Some(op) = by_name(CastOp::ALL, CastOp::name, &word) {
            return Ok(Op::Cast(op, self.value()?));
        }
        let op = match self.value_op(&word)? {
            None => self.effect_op(&word)?,
            op => op,
        };
        match op {
            Some(op) => Ok(op),
            None => {
                self.p.at = at;
                self.p.error("an instruction or `yield`")
            }
        }
    }

    /// The operations that only give a value.
    fn value_op(&mut self, word: &str) -> Parsed<Option<Op>> {
        Ok(Some(match word {
            "const" => Op::Const(self.constant()?),
            "cmp" => {
                let op = self.p.op_name("a comparison", CmpOp::ALL, CmpOp::name)?;
                Op::Cmp(op, self.value()?, self.comma_value()?)
            }
            "ovf" => {
                let op = self.p.op_name("an overflow test", OvfOp::ALL, OvfOp::name)?;
                Op::Ovf(op, self.value()?, self.comma_value()?)
            }
            "reduce" => Op::Reduce(self.p.op_name("a reduction", ReduceOp::ALL, ReduceOp::name)?, self.value()?),
            "select" => Op::Select(self.value()?, self.comma_value()?, self.comma_value()?),
            "fma" => Op::Fma(self.value()?, self.comma_value()?, self.comma_value()?),
            "dot4" => Op::Dot4(self.value()?, self.comma_value()?, self.comma_value()?),
            "splat" => Op::Splat(self.value()?),
            "extract" => Op::Extract(self.value()?, self.lane()?),
            "insert" => Op::Insert(self.value()?, self.comma_value()?, self.lane()?),
            "iota" => Op::Iota,
            "ptr_add" => self.ptr_add()?,
            "load" => {
                let (ptr, offset, align) = self.place()?;
                Op::Load { ptr, offset, align, invariant: self.invariant() }
            }
            "masked_load" => {
                let (ptr, mask) = (self.value()?, self.comma_value()?);
                Op::MaskedLoad { ptr, mask, invariant: self.invariant() }
            }
            "gather" => self.gather()?,
            "alloca" => {
                let bytes = self.p.int("a size in bytes")?;
                Op::Alloca { bytes, align: self.align()? }
            }
            _ => return Ok(None),
        }))
    }

    /// The operations that write, call, fail or have blocks.
    fn effect_op(&mut self, word: &str) -> Parsed<Option<Op>> {
        Ok(Some(match word {
            "store" => {
                let (ptr, offset, align) = self.place()?;
                Op::Store { ptr, offset, align, value: self.comma_value()? }
            }
            "masked_store" => {
                Op::MaskedStore { ptr: self.value()?, mask: self.comma_value()?, value: self.comma_value()? }
            }
            "compress_store" => {
                Op::CompressStore { ptr: self.value()?, mask: self.comma_value()?, value: self.comma_value()? }
            }
            "atomic" => {
                let op = self.p.op_name("an atomic operation", RmwOp::ALL, RmwOp::name)?;
                Op::AtomicRmw { op, ptr: self.value()?, value: self.comma_value()? }
            }
            "cmpxchg" => Op::CmpXchg { ptr: self.value()?, expected: self.comma_value()?, new: self.comma_value()? },
            "prefetch" => Op::Prefetch { ptr: self.value()?, far: false },
            "prefetch_far" => Op::Prefetch { ptr: self.value()?, far: true },
            "call" => Op::Call { callee: self.callee()?, args: self.values()? },
            "fail_if" => {
                let cond = self.value()?;
                self.p.punct(",")?;
                Op::FailIf { cond, code: self.p.int("a status code")? }
            }
            "check" => Op::Check { status: self.value()? },
            "par_for" => self.par_for()?,
            "if" => self.if_()?,
            "for" => self.for_()?,
            "while" => self.while_()?,
            _ => return Ok(None),
        }))
    }

    fn constant(&mut self) -> Parsed<Const> {
        if self.p.eat_word("nan") {
            let bits = self.p.one("the bits of a NaN", |t| match t {
                Token::Int(i) => u64::try_from(*i).ok().filter(|&bits| f64::from_bits(bits).is_nan()),
                _ => None,
            })?;
            return Ok(Const::Float(bits));
        }
        self.p.one("a constant", |t| match t {
            Token::Word(word) if word == "inf" => Some(Const::Float(f64::INFINITY.to_bits())),
            Token::Int(i) => Some(Const::Int(*i)),
            Token::Float(bits) => Some(Const::Float(*bits)),
            _ => None,
        })
    }

    fn lane(&mut self) -> Parsed<u16> {
        self.p.punct(",")?;
        self.p.int("a lane")
    }

    fn align(&mut self) -> Parsed<u16> {
        self.p.keyword("align")?;
        self.p.int("an alignment in bytes")
    }

    fn invariant(&mut self) -> bool {
        self.p.eat_word("invariant")
    }

    fn offset(&mut self) -> Parsed<i64> {
        if self.p.eat("+") { self.p.int("an offset in bytes") } else { Ok(0) }
    }

    /// `v0 + 16 align 8`
    fn place(&mut self) -> Parsed<(Value, i64, u16)> {
        Ok((self.value()?, self.offset()?, self.align()?))
    }

    /// `ptr_add v0 + v1 * 8 + 16`, without the terms that are zero.
    fn ptr_add(&mut self) -> Parsed<Op> {
        let base = self.value()?;
        if !self.p.eat("+") {
            return Ok(Op::PtrAdd { base, index: None, scale: 1, offset: 0 });
        }
        if !self.at_value() {
            let offset = self.p.int("an index or an offset in bytes")?;
            return Ok(Op::PtrAdd { base, index: None, scale: 1, offset });
        }
        let index = Some(self.value()?);
        self.p.punct("*")?;
        let scale = self.p.int("a scale in bytes")?;
        Ok(Op::PtrAdd { base, index, scale, offset: self.offset()? })
    }

    fn gather(&mut self) -> Parsed<Op> {
        let (base, index, mask) = (self.value()?, self.comma_value()?, self.comma_value()?);
        self.p.keyword("scale")?;
        let scale = self.p.int("a scale in bytes")?;
        Ok(Op::Gather { base, index, scale, mask, invariant: self.invariant() })
    }

    fn callee(&mut self) -> Parsed<ExternId> {
        let at = self.p.at;
        let name = self.p.name()?;
        match self.p.module.externs.iter().position(|e| e.name == name) {
            Some(i) => Ok(ExternId(i as u32)),
            None => {
                self.p.at = at;
                self.p.error("the name of an extern declared above")
            }
        }
    }

    fn par_for(&mut self) -> Parsed<Op> {
        self.p.punct("@")?;
        let at = self.p.at;
        let name = self.p.name()?;
        let Some(&func) = self.p.funcs.get(&name) else {
            self.p.at = at;
            return self.p.error("the name of a function");
        };
        self.p.punct("(")?;
        let (frame, n, grain) = (self.value()?, self.comma_value()?, self.comma_value()?);
        self.p.punct(")")?;
        Ok(Op::ParFor { func, frame, n, grain })
    }
}

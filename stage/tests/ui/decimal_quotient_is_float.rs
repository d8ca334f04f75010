use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, Decimal> {
    r.decimal("a") / r.decimal("b")
}

fn main() {}

use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, Str> {
    r.str("a") + r.str("b")
}

fn main() {}

use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, I64> {
    r.i64("a") + r.i32("b")
}

fn main() {}

use quearn_stage::rep::*;

fn wrong<'s>(t: Rep<'s, Table>) -> Rep<'s, Table> {
    t.filter(|r| r.i64("a"))
}

fn main() {}

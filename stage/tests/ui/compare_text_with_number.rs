use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, Bool> {
    r.str("name").eq(3.0)
}

fn main() {}

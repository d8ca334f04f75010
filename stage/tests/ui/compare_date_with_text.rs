use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, Bool> {
    r.date("day").lt("1995-01-01")
}

fn main() {}

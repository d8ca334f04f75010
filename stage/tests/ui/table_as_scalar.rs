use quearn_stage::rep::*;

fn wrong<'s>(t: Rep<'s, Table>) -> Rep<'s, F64> {
    t * 2.0
}

fn main() {}

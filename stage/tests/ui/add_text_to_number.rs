use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, F64> {
    r.f64("price") + r.str("name")
}

fn main() {}

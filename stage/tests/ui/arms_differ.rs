use quearn_stage::rep::*;

fn wrong<'s>(r: Row<'s>) -> Rep<'s, F64> {
    when(r.bool("b")).then(r.f64("x")).otherwise(r.date("d"))
}

fn main() {}

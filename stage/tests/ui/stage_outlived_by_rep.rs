use quearn_stage::rep::*;

fn wrong() -> Rep<'static, Table> {
    let s = Stage::new();
    s.scan("t", [])
}

fn main() {}

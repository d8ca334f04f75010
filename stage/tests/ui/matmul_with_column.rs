use quearn_stage::rep::*;

fn wrong<'s>(x: Rep<'s, Tensor<F32>>, r: Row<'s>) -> Rep<'s, Tensor<F32>> {
    x.matmul(r.f32("a"))
}

fn main() {}

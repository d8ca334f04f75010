//! Q11: important stock identification.

use super::scan;
use crate::schema::{NATION, PARTSUPP, SUPPLIER};
use quearn_stage::rep::{Decimal, Rep, Stage, Table, dec, desc, sum};

/// ```sql
/// select ps_partkey, sum(ps_supplycost * ps_availqty) as value
/// from partsupp, supplier, nation
/// where ps_suppkey = s_suppkey and s_nationkey = n_nationkey and n_name = 'GERMANY'
/// group by ps_partkey
/// having sum(ps_supplycost * ps_availqty) >
///        (select sum(ps_supplycost * ps_availqty) * 0.0001
///         from partsupp, supplier, nation
///         where ps_suppkey = s_suppkey and s_nationkey = n_nationkey and n_name = 'GERMANY')
/// order by value desc
/// ```
pub fn q11(s: &Stage) -> Rep<'_, Table> {
    let germany = scan(s, NATION).filter(|r| r.str("n_name").eq("GERMANY"));
    let suppliers = scan(s, SUPPLIER).join_semi(germany, [("s_nationkey", "n_nationkey")]);
    let stock = scan(s, PARTSUPP)
        .join_semi(suppliers, [("ps_suppkey", "s_suppkey")])
        .group_by(["ps_partkey"])
        .agg(|r| [sum("value", r.decimal("ps_supplycost") * r.i32("ps_availqty").cast_decimal(10, 0))]);
    let least: Rep<'_, Decimal> = stock.sum(|r| r.decimal("value")) * dec("0.0001");
    stock.filter(|r| r.decimal("value").gt(least)).sort([desc("value")])
}

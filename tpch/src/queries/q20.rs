//! Q20: potential part promotion.

use super::scan;
use crate::schema::{LINEITEM, NATION, PART, PARTSUPP, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, date, dec, sum};

/// ```sql
/// select s_name, s_address
/// from supplier, nation
/// where s_suppkey in
///         (select ps_suppkey from partsupp
///          where ps_partkey in (select p_partkey from part where p_name like 'forest%')
///            and ps_availqty > (select 0.5 * sum(l_quantity) from lineitem
///                               where l_partkey = ps_partkey and l_suppkey = ps_suppkey
///                                 and l_shipdate >= date '1994-01-01'
///                                 and l_shipdate < date '1994-01-01' + interval '1' year))
///   and s_nationkey = n_nationkey and n_name = 'CANADA'
/// order by s_name
/// ```
pub fn q20(s: &Stage) -> Rep<'_, Table> {
    let canada = scan(s, NATION).filter(|r| r.str("n_name").eq("CANADA"));
    let suppliers = scan(s, SUPPLIER).join_semi(canada, [("s_nationkey", "n_nationkey")]);
    let forest = scan(s, PART).filter(|r| r.str("p_name").like("forest%"));
    let shipped = scan(s, LINEITEM)
        .filter(|r| r.date("l_shipdate").within(date("1994-01-01")..date("1995-01-01")))
        .join_semi(suppliers, [("l_suppkey", "s_suppkey")])
        .join_semi(forest, [("l_partkey", "p_partkey")])
        .group_by(["l_partkey", "l_suppkey"])
        .agg(|r| [sum("quantity", r.decimal("l_quantity"))]);
    let surplus = scan(s, PARTSUPP)
        .join_inner(shipped, [("ps_partkey", "l_partkey"), ("ps_suppkey", "l_suppkey")])
        .filter(|r| r.i32("ps_availqty").cast_decimal(10, 0).gt(dec("0.5") * r.decimal("quantity")));
    suppliers.join_semi(surplus, [("s_suppkey", "ps_suppkey")]).select(["s_name", "s_address"]).sort([asc("s_name")])
}

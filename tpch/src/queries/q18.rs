//! Q18: large volume customer.

use super::scan;
use crate::schema::{CUSTOMER, LINEITEM, ORDERS};
use quearn_stage::rep::{Rep, Stage, Table, asc, desc, sum};

/// ```sql
/// select c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) as sum_quantity
/// from customer, orders, lineitem
/// where o_orderkey in (select l_orderkey from lineitem group by l_orderkey having sum(l_quantity) > 300)
///   and c_custkey = o_custkey and o_orderkey = l_orderkey
/// group by c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice
/// order by o_totalprice desc, o_orderdate
/// limit 100
/// ```
///
/// The outer groups are single orders, so that the sum of the inner query is theirs too.
pub fn q18(s: &Stage) -> Rep<'_, Table> {
    let large = scan(s, LINEITEM)
        .group_by(["l_orderkey"])
        .agg(|r| [sum("sum_quantity", r.decimal("l_quantity"))])
        .filter(|r| r.decimal("sum_quantity").gt(300));
    let orders = scan(s, ORDERS).join_inner(large, [("o_orderkey", "l_orderkey")]);
    scan(s, CUSTOMER)
        .join_inner(orders, [("c_custkey", "o_custkey")])
        .select(["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "sum_quantity"])
        .sort([desc("o_totalprice"), asc("o_orderdate")])
        .limit(100)
}

//! Q4: order priority checking.

use super::scan;
use crate::schema::{LINEITEM, ORDERS};
use quearn_stage::rep::{Rep, Stage, Table, asc, count, date};

/// ```sql
/// select o_orderpriority, count(*) as order_count
/// from orders
/// where o_orderdate >= date '1993-07-01' and o_orderdate < date '1993-07-01' + interval '3' month
///   and exists (select * from lineitem where l_orderkey = o_orderkey and l_commitdate < l_receiptdate)
/// group by o_orderpriority
/// order by o_orderpriority
/// ```
pub fn q04(s: &Stage) -> Rep<'_, Table> {
    let quarter = scan(s, ORDERS).filter(|r| r.date("o_orderdate").within(date("1993-07-01")..date("1993-10-01")));
    // Most late lines are of other orders; without those the table that `quarter` looks into is small.
    let late = scan(s, LINEITEM)
        .filter(|r| r.date("l_commitdate").lt(r.date("l_receiptdate")))
        .join_semi(quarter, [("l_orderkey", "o_orderkey")]);
    quarter
        .join_semi(late, [("o_orderkey", "l_orderkey")])
        .group_by(["o_orderpriority"])
        .agg(|_| [count("order_count")])
        .sort([asc("o_orderpriority")])
}

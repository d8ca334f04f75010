//! Q12: shipping modes and order priority.

use super::scan;
use crate::schema::{LINEITEM, ORDERS};
use quearn_stage::rep::{Bool, I64, Rep, Row, Stage, Table, asc, date, sum, when};

/// ```sql
/// select l_shipmode,
///        sum(case when o_orderpriority = '1-URGENT' or o_orderpriority = '2-HIGH' then 1 else 0 end)
///            as high_line_count,
///        sum(case when o_orderpriority <> '1-URGENT' and o_orderpriority <> '2-HIGH' then 1 else 0 end)
///            as low_line_count
/// from orders, lineitem
/// where o_orderkey = l_orderkey
///   and l_shipmode in ('MAIL', 'SHIP')
///   and l_commitdate < l_receiptdate and l_shipdate < l_commitdate
///   and l_receiptdate >= date '1994-01-01' and l_receiptdate < date '1994-01-01' + interval '1' year
/// group by l_shipmode
/// order by l_shipmode
/// ```
pub fn q12(s: &Stage) -> Rep<'_, Table> {
    let late = scan(s, LINEITEM).filter(|r| {
        r.str("l_shipmode").is_in(["MAIL", "SHIP"])
            & r.date("l_commitdate").lt(r.date("l_receiptdate"))
            & r.date("l_shipdate").lt(r.date("l_commitdate"))
            & r.date("l_receiptdate").within(date("1994-01-01")..date("1995-01-01"))
    });
    scan(s, ORDERS)
        .join_inner(late, [("o_orderkey", "l_orderkey")])
        .group_by(["l_shipmode"])
        .agg(|r| [sum("high_line_count", one_if(is_urgent(r))), sum("low_line_count", one_if(!is_urgent(r)))])
        .sort([asc("l_shipmode")])
}

fn is_urgent(order: Row<'_>) -> Rep<'_, Bool> {
    order.str("o_orderpriority").is_in(["1-URGENT", "2-HIGH"])
}

fn one_if(condition: Rep<'_, Bool>) -> Rep<'_, I64> {
    when(condition).then(1i64).otherwise(0)
}

//! Q3: shipping priority.

use super::{revenue, scan};
use crate::schema::{CUSTOMER, LINEITEM, ORDERS};
use quearn_stage::rep::{Rep, Stage, Table, asc, date, desc, sum};

/// ```sql
/// select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
/// from customer, orders, lineitem
/// where c_mktsegment = 'BUILDING'
///   and c_custkey = o_custkey and l_orderkey = o_orderkey
///   and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
/// group by l_orderkey, o_orderdate, o_shippriority
/// order by revenue desc, o_orderdate
/// limit 10
/// ```
pub fn q03(s: &Stage) -> Rep<'_, Table> {
    let day = || date("1995-03-15");
    let builders = scan(s, CUSTOMER).filter(|r| r.str("c_mktsegment").eq("BUILDING"));
    let ordered =
        scan(s, ORDERS).filter(|r| r.date("o_orderdate").lt(day())).join_semi(builders, [("o_custkey", "c_custkey")]);
    let unshipped = scan(s, LINEITEM).filter(|r| r.date("l_shipdate").gt(day()));
    unshipped
        .join_inner(ordered, [("l_orderkey", "o_orderkey")])
        .group_by(["l_orderkey", "o_orderdate", "o_shippriority"])
        .agg(|r| [sum("revenue", revenue(r))])
        .select(["l_orderkey", "revenue", "o_orderdate", "o_shippriority"])
        .sort([desc("revenue"), asc("o_orderdate")])
        .limit(10)
}

//! Q13: customer distribution.

use super::scan;
use crate::schema::{CUSTOMER, ORDERS};
use quearn_stage::rep::{Rep, Stage, Table, count, count_of, desc};

/// ```sql
/// select c_count, count(*) as custdist
/// from (select c_custkey, count(o_orderkey) as c_count
///       from customer left outer join orders
///         on c_custkey = o_custkey and o_comment not like '%special%requests%'
///       group by c_custkey) as c_orders
/// group by c_count
/// order by custdist desc, c_count desc
/// ```
pub fn q13(s: &Stage) -> Rep<'_, Table> {
    let usual = scan(s, ORDERS).filter(|r| r.str("o_comment").not_like("%special%requests%"));
    scan(s, CUSTOMER)
        .join_left(usual, [("c_custkey", "o_custkey")])
        .group_by(["c_custkey"])
        .agg(|r| [count_of("c_count", r.i32("o_orderkey"))])
        .group_by(["c_count"])
        .agg(|_| [count("custdist")])
        .sort([desc("custdist"), desc("c_count")])
}

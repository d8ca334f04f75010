//! Q10: returned item reporting.

use super::{revenue, scan};
use crate::schema::{CUSTOMER, LINEITEM, NATION, ORDERS};
use quearn_stage::rep::{Rep, Stage, Table, date, desc, sum};

/// ```sql
/// select c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) as revenue,
///        c_acctbal, n_name, c_address, c_phone, c_comment
/// from customer, orders, lineitem, nation
/// where c_custkey = o_custkey and l_orderkey = o_orderkey
///   and o_orderdate >= date '1993-10-01' and o_orderdate < date '1993-10-01' + interval '3' month
///   and l_returnflag = 'R' and c_nationkey = n_nationkey
/// group by c_custkey, c_name, c_acctbal, c_phone, n_name, c_address, c_comment
/// order by revenue desc
/// limit 20
/// ```
///
/// The groups are single customers, whose names and addresses are read for those that are shown.
pub fn q10(s: &Stage) -> Rep<'_, Table> {
    let quarter = scan(s, ORDERS).filter(|r| r.date("o_orderdate").within(date("1993-10-01")..date("1994-01-01")));
    let largest = scan(s, LINEITEM)
        .filter(|r| r.str("l_returnflag").eq("R"))
        .join_inner(quarter, [("l_orderkey", "o_orderkey")])
        .group_by(["o_custkey"])
        .agg(|r| [sum("revenue", revenue(r))])
        .sort([desc("revenue")])
        .limit(20);
    scan(s, CUSTOMER)
        .join_inner(largest, [("c_custkey", "o_custkey")])
        .join_inner(scan(s, NATION), [("c_nationkey", "n_nationkey")])
        .select(["c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment"])
        .sort([desc("revenue")])
}

//! Q15: top supplier.

use super::{revenue, scan};
use crate::schema::{LINEITEM, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, date, sum};

/// ```sql
/// with revenue as (
///     select l_suppkey as supplier_no, sum(l_extendedprice * (1 - l_discount)) as total_revenue
///     from lineitem
///     where l_shipdate >= date '1996-01-01' and l_shipdate < date '1996-01-01' + interval '3' month
///     group by l_suppkey)
/// select s_suppkey, s_name, s_address, s_phone, total_revenue
/// from supplier, revenue
/// where s_suppkey = supplier_no and total_revenue = (select max(total_revenue) from revenue)
/// order by s_suppkey
/// ```
pub fn q15(s: &Stage) -> Rep<'_, Table> {
    let revenues = scan(s, LINEITEM)
        .filter(|r| r.date("l_shipdate").within(date("1996-01-01")..date("1996-04-01")))
        .group_by(["l_suppkey"])
        .agg(|r| [sum("total_revenue", revenue(r))]);
    let most = revenues.max(|r| r.decimal("total_revenue"));
    let top = revenues.filter(|r| r.decimal("total_revenue").eq(most));
    scan(s, SUPPLIER)
        .join_inner(top, [("s_suppkey", "l_suppkey")])
        .select(["s_suppkey", "s_name", "s_address", "s_phone", "total_revenue"])
        .sort([asc("s_suppkey")])
}

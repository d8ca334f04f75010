//! Q1: pricing summary report.

use super::{revenue, scan};
use crate::schema::LINEITEM;
use quearn_stage::rep::{Rep, Stage, Table, asc, avg, count, date, sum};

/// ```sql
/// select l_returnflag, l_linestatus,
///        sum(l_quantity) as sum_qty,
///        sum(l_extendedprice) as sum_base_price,
///        sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
///        sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
///        avg(l_quantity) as avg_qty, avg(l_extendedprice) as avg_price, avg(l_discount) as avg_disc,
///        count(*) as count_order
/// from lineitem
/// where l_shipdate <= date '1998-12-01' - interval '90' day
/// group by l_returnflag, l_linestatus
/// order by l_returnflag, l_linestatus
/// ```
pub fn q01(s: &Stage) -> Rep<'_, Table> {
    // 90 days before 1998-12-01.
    let shipped = scan(s, LINEITEM).filter(|r| r.date("l_shipdate").le(date("1998-09-02")));
    let summary = shipped.group_by(["l_returnflag", "l_linestatus"]).agg(|r| {
        [
            sum("sum_qty", r.decimal("l_quantity")),
            sum("sum_base_price", r.decimal("l_extendedprice")),
            sum("sum_disc_price", revenue(r)),
            sum("sum_charge", revenue(r) * (1 + r.decimal("l_tax"))),
            avg("avg_qty", r.decimal("l_quantity")),
            avg("avg_price", r.decimal("l_extendedprice")),
            avg("avg_disc", r.decimal("l_discount")),
            count("count_order"),
        ]
    });
    summary.sort([asc("l_returnflag"), asc("l_linestatus")])
}

//! Q6: forecasting revenue change.

use super::scan;
use crate::schema::LINEITEM;
use quearn_stage::rep::{Rep, Stage, Table, date, dec, sum};

/// ```sql
/// select sum(l_extendedprice * l_discount) as revenue
/// from lineitem
/// where l_shipdate >= date '1994-01-01' and l_shipdate < date '1994-01-01' + interval '1' year
///   and l_discount between 0.06 - 0.01 and 0.06 + 0.01
///   and l_quantity < 24
/// ```
pub fn q06(s: &Stage) -> Rep<'_, Table> {
    scan(s, LINEITEM)
        .filter(|r| {
            r.date("l_shipdate").within(date("1994-01-01")..date("1995-01-01"))
                & r.decimal("l_discount").between(dec("0.05"), dec("0.07"))
                & r.decimal("l_quantity").lt(24)
        })
        .aggregate(|r| [sum("revenue", r.decimal("l_extendedprice") * r.decimal("l_discount"))])
}

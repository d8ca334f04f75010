//! Q14: promotion effect.

use super::{revenue, scan};
use crate::schema::{LINEITEM, PART};
use quearn_stage::rep::{Rep, Stage, Table, date, dec, sum, when};

/// ```sql
/// select 100.00 * sum(case when p_type like 'PROMO%' then l_extendedprice * (1 - l_discount) else 0 end)
///        / sum(l_extendedprice * (1 - l_discount)) as promo_revenue
/// from lineitem, part
/// where l_partkey = p_partkey
///   and l_shipdate >= date '1995-09-01' and l_shipdate < date '1995-09-01' + interval '1' month
/// ```
pub fn q14(s: &Stage) -> Rep<'_, Table> {
    let month = scan(s, LINEITEM).filter(|r| r.date("l_shipdate").within(date("1995-09-01")..date("1995-10-01")));
    month
        .join_inner(scan(s, PART), [("l_partkey", "p_partkey")])
        .aggregate(|r| {
            let promo = when(r.str("p_type").like("PROMO%")).then(revenue(r)).otherwise(0);
            [sum("promo", promo), sum("all", revenue(r))]
        })
        .project(|r| [("promo_revenue", (dec("100.00") * r.decimal("promo") / r.decimal("all")).dyn_())])
}

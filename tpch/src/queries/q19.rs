//! Q19: discounted revenue.

use super::{revenue, scan};
use crate::schema::{LINEITEM, PART};
use quearn_stage::rep::{Bool, Rep, Row, Stage, Table, sum};

/// ```sql
/// select sum(l_extendedprice * (1 - l_discount)) as revenue
/// from lineitem, part
/// where (p_partkey = l_partkey
///        and p_brand = 'Brand#12' and p_container in ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
///        and l_quantity >= 1 and l_quantity <= 1 + 10 and p_size between 1 and 5
///        and l_shipmode in ('AIR', 'AIR REG') and l_shipinstruct = 'DELIVER IN PERSON')
///    or (p_partkey = l_partkey
///        and p_brand = 'Brand#23' and p_container in ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
///        and l_quantity >= 10 and l_quantity <= 10 + 10 and p_size between 1 and 10
///        and l_shipmode in ('AIR', 'AIR REG') and l_shipinstruct = 'DELIVER IN PERSON')
///    or (p_partkey = l_partkey
///        and p_brand = 'Brand#34' and p_container in ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')
///        and l_quantity >= 20 and l_quantity <= 20 + 10 and p_size between 1 and 15
///        and l_shipmode in ('AIR', 'AIR REG') and l_shipinstruct = 'DELIVER IN PERSON')
/// ```
///
/// What the three alternatives share is pulled out of the OR, and so is what each says of the part alone; the brand
/// then tells the alternatives apart.
pub fn q19(s: &Stage) -> Rep<'_, Table> {
    let parts = scan(s, PART).filter(|r| any(|offer| offer.is_of(r) & offer.fits(r)));
    let by_air = scan(s, LINEITEM)
        .filter(|r| r.str("l_shipmode").is_in(["AIR", "AIR REG"]) & r.str("l_shipinstruct").eq("DELIVER IN PERSON"));
    by_air
        .join_inner(parts, [("l_partkey", "p_partkey")])
        .filter(|r| any(|offer| offer.is_of(r) & offer.amounts(r)))
        .aggregate(|r| [sum("revenue", revenue(r))])
}

/// One of the alternatives.
struct Offer {
    brand: &'static str,
    containers: [&'static str; 4],
    least: i64,
    max_size: i32,
}

const SMALL: Offer =
    Offer { brand: "Brand#12", containers: ["SM CASE", "SM BOX", "SM PACK", "SM PKG"], least: 1, max_size: 5 };
const MEDIUM: Offer =
    Offer { brand: "Brand#23", containers: ["MED BAG", "MED BOX", "MED PKG", "MED PACK"], least: 10, max_size: 10 };
const LARGE: Offer =
    Offer { brand: "Brand#34", containers: ["LG CASE", "LG BOX", "LG PACK", "LG PKG"], least: 20, max_size: 15 };

impl Offer {
    fn is_of<'s>(&self, part: Row<'s>) -> Rep<'s, Bool> {
        part.str("p_brand").eq(self.brand)
    }

    fn fits<'s>(&self, part: Row<'s>) -> Rep<'s, Bool> {
        part.str("p_container").is_in(self.containers) & part.i32("p_size").between(1, self.max_size)
    }

    fn amounts<'s>(&self, line: Row<'s>) -> Rep<'s, Bool> {
        line.decimal("l_quantity").between(self.least, self.least + 10)
    }
}

/// Does one of the alternatives hold?
fn any<'s>(holds: impl Fn(&Offer) -> Rep<'s, Bool>) -> Rep<'s, Bool> {
    holds(&SMALL) | holds(&MEDIUM) | holds(&LARGE)
}

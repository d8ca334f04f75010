//! Q8: national market share.

use super::{nations_of, revenue, scan};
use crate::schema::{CUSTOMER, LINEITEM, NATION, ORDERS, PART, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, date, sum, when};

/// ```sql
/// select o_year, sum(case when nation = 'BRAZIL' then volume else 0 end) / sum(volume) as mkt_share
/// from (select extract(year from o_orderdate) as o_year,
///              l_extendedprice * (1 - l_discount) as volume, n2.n_name as nation
///       from part, supplier, lineitem, orders, customer, nation n1, nation n2, region
///       where p_partkey = l_partkey and s_suppkey = l_suppkey
///         and l_orderkey = o_orderkey and o_custkey = c_custkey
///         and c_nationkey = n1.n_nationkey and n1.n_regionkey = r_regionkey and r_name = 'AMERICA'
///         and s_nationkey = n2.n_nationkey
///         and o_orderdate between date '1995-01-01' and date '1996-12-31'
///         and p_type = 'ECONOMY ANODIZED STEEL') as all_nations
/// group by o_year
/// order by o_year
/// ```
pub fn q08(s: &Stage) -> Rep<'_, Table> {
    let steel = scan(s, PART).filter(|r| r.str("p_type").eq("ECONOMY ANODIZED STEEL"));
    let customers = scan(s, CUSTOMER).join_semi(nations_of(s, "AMERICA"), [("c_nationkey", "n_nationkey")]);
    let suppliers = scan(s, SUPPLIER).join_inner(scan(s, NATION), [("s_nationkey", "n_nationkey")]);
    let sold = scan(s, LINEITEM)
        .join_semi(steel, [("l_partkey", "p_partkey")])
        .join_inner(suppliers, [("l_suppkey", "s_suppkey")])
        .with("volume", revenue);
    scan(s, ORDERS)
        .filter(|r| r.date("o_orderdate").between(date("1995-01-01"), date("1996-12-31")))
        .join_inner(sold, [("o_orderkey", "l_orderkey")])
        .join_semi(customers, [("o_custkey", "c_custkey")])
        .group_by_exprs(|r| [("o_year", r.date("o_orderdate").year().dyn_())])
        .agg(|r| {
            let brazil = when(r.str("n_name").eq("BRAZIL")).then(r.decimal("volume")).otherwise(0);
            [sum("brazil", brazil), sum("all", r.decimal("volume"))]
        })
        .project(|r| [("o_year", r.col("o_year")), ("mkt_share", (r.decimal("brazil") / r.decimal("all")).dyn_())])
        .sort([asc("o_year")])
}

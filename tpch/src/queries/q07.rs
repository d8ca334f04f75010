//! Q7: volume shipping.

use super::{revenue, scan};
use crate::schema::{CUSTOMER, LINEITEM, NATION, ORDERS, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, date, sum};

/// ```sql
/// select supp_nation, cust_nation, l_year, sum(volume) as revenue
/// from (select n1.n_name as supp_nation, n2.n_name as cust_nation,
///              extract(year from l_shipdate) as l_year, l_extendedprice * (1 - l_discount) as volume
///       from supplier, lineitem, orders, customer, nation n1, nation n2
///       where s_suppkey = l_suppkey and o_orderkey = l_orderkey and c_custkey = o_custkey
///         and s_nationkey = n1.n_nationkey and c_nationkey = n2.n_nationkey
///         and ((n1.n_name = 'FRANCE' and n2.n_name = 'GERMANY')
///              or (n1.n_name = 'GERMANY' and n2.n_name = 'FRANCE'))
///         and l_shipdate between date '1995-01-01' and date '1996-12-31') as shipping
/// group by supp_nation, cust_nation, l_year
/// order by supp_nation, cust_nation, l_year
/// ```
pub fn q07(s: &Stage) -> Rep<'_, Table> {
    // Of these two, so that two that differ are one of the pairs.
    let nations = scan(s, NATION).filter(|r| r.str("n_name").is_in(["FRANCE", "GERMANY"]));
    let suppliers =
        scan(s, SUPPLIER).join_inner(nations.rename("n_name", "supp_nation"), [("s_nationkey", "n_nationkey")]);
    let customers = scan(s, CUSTOMER)
        .join_inner(nations.rename("n_name", "cust_nation"), [("c_nationkey", "n_nationkey")])
        .select(["c_custkey", "cust_nation"]);
    let shipped = scan(s, LINEITEM)
        .filter(|r| r.date("l_shipdate").between(date("1995-01-01"), date("1996-12-31")))
        .join_inner(suppliers, [("l_suppkey", "s_suppkey")])
        .with("l_year", |r| r.date("l_shipdate").year())
        .with("volume", revenue);
    scan(s, ORDERS)
        .join_inner(shipped, [("o_orderkey", "l_orderkey")])
        .join_inner(customers, [("o_custkey", "c_custkey")])
        .filter(|r| r.str("supp_nation").ne(r.str("cust_nation")))
        .group_by(["supp_nation", "cust_nation", "l_year"])
        .agg(|r| [sum("revenue", r.decimal("volume"))])
        .sort([asc("supp_nation"), asc("cust_nation"), asc("l_year")])
}

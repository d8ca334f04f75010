//! Q22: global sales opportunity.

use super::scan;
use crate::schema::{CUSTOMER, ORDERS};
use quearn_stage::rep::{F64, Rep, Stage, Table, asc, count, sum};

/// ```sql
/// select cntrycode, count(*) as numcust, sum(c_acctbal) as totacctbal
/// from (select substring(c_phone from 1 for 2) as cntrycode, c_acctbal
///       from customer
///       where substring(c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17')
///         and c_acctbal > (select avg(c_acctbal) from customer
///                          where c_acctbal > 0.00
///                            and substring(c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17'))
///         and not exists (select * from orders where o_custkey = c_custkey)) as custsale
/// group by cntrycode
/// order by cntrycode
/// ```
pub fn q22(s: &Stage) -> Rep<'_, Table> {
    let customers = scan(s, CUSTOMER)
        .with("cntrycode", |r| r.str("c_phone").substring(1, 2))
        .filter(|r| r.str("cntrycode").is_in(["13", "31", "23", "29", "30", "18", "17"]));
    let average = customers.filter(|r| r.decimal("c_acctbal").gt(0)).avg(|r| r.decimal("c_acctbal"));
    customers
        .filter(|r| r.decimal("c_acctbal").cast::<F64>().gt(average))
        .join_anti(scan(s, ORDERS), [("c_custkey", "o_custkey")])
        .group_by(["cntrycode"])
        .agg(|r| [count("numcust"), sum("totacctbal", r.decimal("c_acctbal"))])
        .sort([asc("cntrycode")])
}

//! A filter does not allocate for the rows that it looks at.

mod common;

use allocation_counter::measure;
use common::{generated, stored};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::search::{Filter, Searched};

#[test]
fn rows_are_decided_without_an_allocation() {
    let resources: Vec<_> = generated().iter().map(|line| stored(Version::R4, line)).collect();
    let many = format!("code={}", (0..900).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    for (resource_type, query) in [
        ("Observation", "code=8302-2&category=vital-signs,laboratory"),
        ("Observation", many.as_str()),
        ("Observation", "code:not=8302-2&status=final&date=ge2020-01-01&value-quantity=gt5||cm"),
        ("Observation", "subject=Patient/x,y&encounter=z&code-value-quantity=8302-2$gt190"),
        ("Observation", "_lastUpdated=gt2020&_id=a,b&_tag=x&_profile=http://example.org/p"),
        ("Patient", "name=an&gender=female&birthdate=lt1990&address-city=b&identifier=urn:x|1&deceased=false"),
        ("Patient", "family:exact=Muster&telecom=555&race=2106-3"),
    ] {
        let searched = Searched { version: Version::R4, resource_type, own: &[], bases: &[] };
        let filter = Filter::new(query, &searched).unwrap();
        let of_type = || resources.iter().filter(|stored| stored.resource_type == resource_type);
        assert!(of_type().count() > 10);
        let mut found = 0;
        let info = measure(|| found = of_type().filter(|stored| filter.matches(stored.resource())).count());
        assert_eq!(info.count_total, 0, "{query} (finds {found})");
    }
}

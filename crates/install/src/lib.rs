//! From an IstioOperator document to the objects of a cluster: profiles, manifests, charts, revisions, images.

//! stub
#![allow(missing_docs, unused_variables, clippy::unimplemented)]
use http::*; use crate::content::*; use std::time::Duration;
pub struct RequestFacts<'a>{pub method:&'a Method,pub headers:&'a HeaderMap}
pub struct Options{pub clients_may_refetch:bool}
pub struct Freshness{}
pub struct BypassReason{}
pub enum Decision { Serve { freshness: Freshness }, Revalidate { conditions: HeaderMap, must: bool }, Fetch(FwdReason), Bypass(BypassReason), OnlyIfCachedMiss }
#[derive(Clone,Copy,Debug)]
pub enum FwdReason { Bypass, Method, UriMiss, VaryMiss, Miss, Request, Stale, Partial }
pub fn decide(f:&RequestFacts<'_>, s: Option<&Record>, policy: &Policy, path: &str, options: &Options, now: UnixMillis)->Decision{unimplemented!()}
pub fn may_serve_stale(r:&Record, f:&RequestFacts<'_>, p:&Policy, path:&str, now:UnixMillis)->bool{unimplemented!()}
pub fn vary_matches(r:&Record, h:&HeaderMap)->bool{unimplemented!()}
pub struct VaryStar;
pub fn selecting_fields(a:&HeaderMap,b:&HeaderMap,p:&Policy)->std::result::Result<Vec<VaryField>,VaryStar>{unimplemented!()}
pub enum Storable{Yes,No(())}
pub fn storable(m:&Method,a:&HeaderMap,s:StatusCode,b:&HeaderMap,p:&Policy,path:&str)->Storable{unimplemented!()}
pub fn not_modified_selects(r:&Record,h:&HeaderMap)->bool{unimplemented!()}
pub fn merge_304(r:&Record,h:&HeaderMap,a:UnixMillis,b:UnixMillis)->Record{unimplemented!()}
pub fn repr_digest(h:&HeaderMap)->Option<Digest>{unimplemented!()}
pub enum Precondition{Proceed, NotModified, Failed}
pub fn preconditions(m:&Method,h:&HeaderMap,r:&Record)->Precondition{unimplemented!()}
pub enum RangeOutcome{Whole, Single(ByteRange), Multiple(Vec<ByteRange>), Unsatisfiable, NeedsLength}
pub fn ranges(h:&HeaderMap,r:&Record,l:Option<u64>,m:usize)->RangeOutcome{unimplemented!()}
pub fn age(r:&Record,now:UnixMillis)->Duration{unimplemented!()}
#[derive(Clone,Debug)]
pub struct CacheStatus{}
impl CacheStatus{pub fn hit()->Self{Self{}} pub fn forwarded(f:FwdReason,s:Option<u16>)->Self{Self{}} pub fn own(d:&str)->Self{Self{}} pub fn stored(self)->Self{self} pub fn collapsed_if(self,b:bool)->Self{self} pub fn render(&self,n:&str)->String{unimplemented!()}}

//! The real program, driven from outside: ffmpeg publishes, small clients written for this purpose look at
//! every byte that comes back.
//!
//! What comes back is never looked at with the library's own parsers: a mistake must not be able to hide by
//! being made twice.
//! Waiting is polling with generous bounds; no test asserts a speed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod access;
mod admin;
mod badinput;
mod chain;
mod clients;
mod corpus;
mod crowd;
mod demo;
mod faults_addresses;
mod faults_flood;
mod faults_http;
mod faults_memory;
mod faults_names;
mod faults_rtmp;
mod faults_upstream;
mod files;
mod files_fetch;
mod files_life;
mod files_proxy;
mod frozen;
mod harness;
mod hook_example;
mod hostile;
mod hostile_tls;
mod limits;
mod listings;
mod misuse;
mod operator;
mod packaging;
mod proxied;
mod push;
mod recording;
mod relay;
mod restart;
mod service;
mod stress;
mod tls;
mod tls_services;
mod tracks;
mod upstream;

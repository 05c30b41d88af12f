package main

// webhookSecret is a made-up signing secret of the Standard Webhooks form.
const webhookSecret = "whsec_c2lnbnMgZXZlbnRzIG9mIGEgYmVuY2htYXJrIQ==" //nolint:gosec // signs nothing but events of a benchmark

// Package browser has no code but a test: it looks at the debug page of package
// debugpage with a real browser, Chromium. It is a module of its own, so that users
// of the core never see the driver.
package browser

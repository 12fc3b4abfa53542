package core

// Policy says which calls a thread runs while the function on it is blocked in
// a wait of this library.
type Policy uint8

const (
	Related Policy = iota // those that the wait may depend on
	All                   // every one, in the order of arrival
	None                  // not any
)

// String returns the name of the policy.
func (p Policy) String() string {
	switch p {
	case Related:
		return "Related"
	case All:
		return "All"
	case None:
		return "None"
	}
	return "invalid"
}

package predict

import "context"

// keyOfRequest is what a context has a request's routing key under.
type keyOfRequest struct{}

// WithKey returns a context that carries a routing key: what requests have in common that
// should be answered alike, such as a session, while two versions of a model share the
// traffic. It is the caller's, names no row, and is neither logged nor counted. An empty one
// is none.
func WithKey(ctx context.Context, key string) context.Context {
	if key == "" {
		return ctx
	}
	return context.WithValue(ctx, keyOfRequest{}, key)
}

// KeyOf returns the routing key that a context carries, or nothing.
func KeyOf(ctx context.Context) string {
	key, _ := ctx.Value(keyOfRequest{}).(string)
	return key
}

package upstream

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// Bearer keeps a token for one scope. It is safe for concurrent use.
type Bearer struct {
	credential azcore.TokenCredential
	scope      string

	mu    sync.Mutex
	token azcore.AccessToken
}

// NewBearer makes a Bearer that asks a credential for tokens.
func NewBearer(credential azcore.TokenCredential, scope string) *Bearer {
	return &Bearer{credential: credential, scope: scope}
}

// Token is a token that is still good for a while. Callers that come while one
// is fetched wait for it.
func (b *Bearer) Token(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token.Token != "" && time.Until(b.token.ExpiresOn) > tokenMargin {
		return b.token.Token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	token, err := b.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{b.scope}})
	if err != nil {
		return "", err
	}
	b.token = token
	return token.Token, nil
}

// Requests the list in the way of the product's web client: one address for the whole API, filters only where they are not
// null, a Content-Type on GET, and no token.
const BACKEND_URL = "http://127.0.0.1:8000";

export interface Filters {
  page?: number | null;
  limit?: number | null;
  status?: string | null;
  startDate?: string | null;
  minAge?: number | string | null;
  sortBy?: string | null;
  sortOrder?: "asc" | "desc" | null;
}

export interface BackendCase {
  patient_name: string;
  status: string | null;
}

/** Returns the session of a signed-in user, as Supabase's client does. */
export const session: { access_token: string | undefined } = { access_token: undefined };
export const createClient = () => ({ auth: { getSession: async () => ({ data: { session } }) } });

async function makeBackendRequest(endpoint: string, { headers = {} }: { headers?: Record<string, string> }) {
  const response = await fetch(`${BACKEND_URL}${endpoint}`, {
    headers: { "Content-Type": "application/json", ...headers },
  });
  if (!response.ok) {
    const errorData: { error?: string; detail?: string } = await response.json();
    throw new Error(errorData.error || `HTTP ${response.status}`);
  }
  return (await response.json()) as { cases: BackendCase[] };
}

export async function getCases(filters: Filters, userId: string) {
  const query = new URLSearchParams({ user_id: userId });
  for (const [name, value] of Object.entries(filters)) {
    if (value !== undefined && value !== null) query.append(name, String(value));
  }
  const endpoint = `/cases/all_cases?${query}`;
  const data = await makeBackendRequest(endpoint, {});
  return data.cases.map((backendCase) => ({
    name: backendCase.patient_name,
    status: backendCase.status,
  }));
}
